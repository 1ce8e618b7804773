#!/usr/bin/env bash
# The clinical example of alignment, from data to a table with intervals. README.md says what came out.
#
#   recipes/clinical/run.sh WORK
#
# Needs what `galen quickstart` made: QUICKSTART (galen-quickstart) and the ICD-10-CM list it fetched, ICD10_XML (found in galen's
# cache). Environment: GALEN (target/release/galen), SEEDS ("1 2 3"). A run that is there is not repeated.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
galen="$(realpath "${GALEN:-target/release/galen}")" seeds="${SEEDS:-1 2 3}"
quickstart="$(realpath "${QUICKSTART:-galen-quickstart}")"
xml="${ICD10_XML:-$(find "${GALEN_CACHE:-$HOME/.cache/galen}" -name 'icd10c-tabular*.xml' | head -n 1)}"
mkdir -p "$1" && cd "$1"
[ -f data/test.yaml ] || python3 "$here/data.py" "$xml" "$quickstart/data" data
train() { # COMMAND CONFIG DIR [--set KEY=VALUE...]
    local command="$1" config="$2" dir="$3"
    shift 3
    [ -f "$dir/report.html" ] || "$galen" "$command" "$here/$config" --resume --set "output_dir=$dir" "$@"
}
train train sft.yaml runs/sft
# Answers of the SFT adapter to the pool: the steps of this run are too small to change a value.
if [ ! -f data/pairs.jsonl ]; then
    train align grpo.yaml runs/sampled --set learning_rate=1e-30 --set trl.beta=0 --set val_set_size=0 --set eval_task= \
        --set eval_steps= --set metric_for_best_model= --set load_best_model_at_end=false --set max_steps=-1
    python3 "$here/pairs.py" runs/sampled/completions.jsonl data/pool.jsonl data/pairs.jsonl
fi
adapters=(--adapter runs/sft)
for seed in $seeds; do
    for name in dpo rpo grpo; do
        train align "$name.yaml" "runs/$name-$seed" --set "seed=$seed"
        adapters+=(--adapter "runs/$name-$seed")
    done
done
[ -f test.samples.jsonl ] || "$galen" eval --model smollm2-135m-instruct "${adapters[@]}" --tasks data/test.yaml \
    --apply_chat_template --log_samples --out test.json
python3 "$here/compare.py" test.samples.jsonl runs/sft dpo rpo grpo
