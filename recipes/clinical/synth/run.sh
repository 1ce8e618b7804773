#!/usr/bin/env bash
# Do synthesised rows help where labels are few? 25 labelled rows a letter, with and without them; README.md says more.
#
#   recipes/clinical/synth/run.sh WORK
#
# Needs what `galen quickstart` made: QUICKSTART (galen-quickstart) and the ICD-10-CM list it fetched, ICD10_XML (found in galen's
# cache). Environment: GALEN (target/release/galen), SEEDS ("1 2 3"), ROWS (25 a letter), ARMS ("templated lay both choices").
# What is there is not made again; a pipeline goes on where it was stopped.
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
galen="$(realpath "${GALEN:-target/release/galen}")" seeds="${SEEDS:-1 2 3}" rows="${ROWS:-25}"
arms="${ARMS:-templated lay both choices}"
quickstart="$(realpath "${QUICKSTART:-galen-quickstart}")"
xml="${ICD10_XML:-$(find "${GALEN_CACHE:-$HOME/.cache/galen}" -name 'icd10c-tabular*.xml' | head -n 1)}"
mkdir -p "$1" && cd "$1"
mkdir -p data
cp -r "$here/prompts" .
[ -f data/test.yaml ] || python3 "$here/../data.py" "$xml" "$quickstart/data" data
[ -f data/facts.jsonl ] ||
    python3 "$here/facts.py" "$xml" data/facts.jsonl data/test.questions.jsonl data/validation.questions.jsonl
for pipeline in templated vignettes choices; do
    [ -f "runs/$pipeline/synth_report.html" ] || "$galen" synth "$here/$pipeline.yaml" --resume
done
adapters=()
train() { # NAME SEED FILE...
    local dir="runs/$1-$2" data="data/$1-$2.jsonl"
    cat "${@:3}" >"$data.partial" && mv "$data.partial" "$data"
    [ -f "$dir/report.html" ] || "$galen" train "$here/sft.yaml" --resume --set "output_dir=$dir" --set "seed=$2" \
        --set "datasets[0].path=$data"
    adapters+=(--adapter "$dir")
}
for seed in $seeds; do
    few="data/labelled-$seed.jsonl"
    [ -f "$few" ] || python3 "$here/few.py" "$quickstart/data/train.jsonl" "$few" "$rows" "$seed"
    train few "$seed" "$few"
    for arm in $arms; do
        case "$arm" in
        templated) train templated "$seed" "$few" runs/templated/sft.jsonl ;;
        lay) train lay "$seed" "$few" runs/vignettes/sft.jsonl ;;
        both) train both "$seed" "$few" runs/templated/sft.jsonl runs/vignettes/sft.jsonl ;;
        choices) train choices "$seed" "$few" runs/choices/questions.jsonl ;;
        *) echo "no arm \`$arm\`" >&2; exit 2 ;;
        esac
    done
done
[ -f test.samples.jsonl ] || "$galen" eval --model smollm2-135m-instruct "${adapters[@]}" --tasks data/test.yaml \
    --apply_chat_template --log_samples --out test.json
# shellcheck disable=SC2086
python3 "$here/compare.py" test.samples.jsonl few $arms
