#!/usr/bin/env bash
# Everything on a card: checks, timings, the peers where they are, compute-sanitizer where it is. Writes one JSON,
# gpu-report.json, into the folder it is called from. Needs NVIDIA's driver 580 or newer.
#
#   run.sh [arguments of galen-gpu-check]
set -uo pipefail
card=0
for ((i = 1; i < $#; i++)); do
    [ "${!i}" != "--card" ] || { i=$((i + 1)) && card="${!i}"; }
done
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${OUT:-$PWD}"
mkdir -p "$out"
status=0

echo "== checks and timings"
"$here/galen-gpu-check" --out "$out/gpu-check.json" "$@" || status=1

if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "== PyTorch at the same shapes"
    timeout 900 python3 "$here/peers.py" "$out/gpu-peers.json" "$card" || echo "the peers' timings failed"
else
    echo "== no python3 with torch that sees a card: peers are not timed"
fi

sanitizer="$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)"
: >"$out/gpu-sanitizer.txt"
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck synccheck; do
        echo "== compute-sanitizer $tool over the small cases"
        {
            echo "== $tool"
            timeout 900 "$sanitizer" --tool "$tool" --error-exitcode 9 \
                "$here/galen-gpu-check" --card "$card" --small --out "$out/gpu-small.json" 2>&1 | tail -40
            code="${PIPESTATUS[0]}"
            echo "exit status $code"
        } >>"$out/gpu-sanitizer.txt"
        grep -q "exit status 0" <(tail -1 "$out/gpu-sanitizer.txt") || status=1
    done
else
    echo "== no compute-sanitizer"
fi

# One file, whatever of it is there.
{
    printf '{\n"check": '
    cat "$out/gpu-check.json" 2>/dev/null || printf 'null'
    printf ',\n"peers": '
    cat "$out/gpu-peers.json" 2>/dev/null || printf 'null'
    printf ',\n"sanitizer": "'
    tail -c 200000 "$out/gpu-sanitizer.txt" | tr -d '\000-\010\013-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/ /g' | awk '{printf "%s\\n", $0}'
    printf '"\n}\n'
} >"$out/gpu-report.json"
echo "$out/gpu-report.json"
if [ "$(wc -c <"$out/gpu-report.json")" -gt $((16 << 20)) ]; then
    echo "gpu-report.json is larger than 16 MB" >&2
    status=1
fi
exit "$status"
