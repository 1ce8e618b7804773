#!/usr/bin/env bash
# bf16 training beside f32: the quickstart's data and hyper-parameters, five seeds each, on the 2,400-row test set.
#
#   galen quickstart --out q                    # makes q/run.yaml and q/data/
#   benches/seeds.sh q/run.yaml q/data OUT      # where the quickstart was started: the paths in run.yaml are relative
#
# Environment: GALEN (target/release/galen), SEEDS ("1 2 3 4 5"), QUESTIONS (2400, drawn from test.jsonl), TRAIN (further
# `--set KEY=VALUE` words for both). A run that is there is not repeated; one that was cut off goes on.
set -euo pipefail
if [ $# -ne 3 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
config="$1" data="$2" out="$3"
galen="${GALEN:-target/release/galen}" seeds="${SEEDS:-1 2 3 4 5}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$out"

adapters=()
for seed in $seeds; do
    # The two take turns, so that a slow hour of the machine strikes both.
    for mode in f32 bf16; do
        run="$out/$mode-$seed"
        adapters+=(--adapter "$run")
        if [ -f "$run/report.html" ]; then continue; fi
        case "$mode" in f32) bf16=false ;; *) bf16=true ;; esac
        # shellcheck disable=SC2086
        "$galen" train "$config" --offline --resume --set "seed=$seed" --set "bf16=$bf16" --set "output_dir=$run" \
            --set save_total_limit=1 ${TRAIN:-} >/dev/null
    done
done
# The test set is sorted by letter: draw from all of it.
if [ ! -f "$out/task.yaml" ]; then
    python3 -c '
import random, sys
rows = open(sys.argv[1]).readlines()
drawn = sorted(random.Random(0).sample(range(len(rows)), min(int(sys.argv[3]), len(rows))))
open(sys.argv[2], "w").writelines(rows[i] for i in drawn)
' "$data/test.jsonl" "$out/questions.jsonl" "${QUESTIONS:-2400}"
    sed 's/test: test.jsonl/test: questions.jsonl/' "$data/icd10_letter_full.yaml" >"$out/task.yaml"
fi
# One evaluation of all adapters: base and questions are the same for each.
if [ ! -f "$out/eval.samples.jsonl" ]; then
    model="$(sed -n 's/^base_model: *//p' "$config")"
    "$galen" eval --offline --model "$model" "${adapters[@]}" --tasks "$out/task.yaml" --apply_chat_template \
        --log_samples --out "$out/eval.json" >/dev/null
fi
exec python3 "$here/seeds.py" "$out" $seeds
