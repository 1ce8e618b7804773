#!/usr/bin/env bash
# Builds the oneDNN peer of `kernels.rs` and prints where it lies; with arguments it runs it instead.
#
#   apt-get install libdnnl-dev g++
#   cargo run --release -p galen-bench --bin kernels -- --onednn "$(benches/onednn.sh)"
#   benches/onednn.sh 1024 576 1536 512 2048 2048
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${CARGO_TARGET_DIR:-$here/../target}/onednn"
if [ ! -x "$out" ] || [ "$here/onednn.cpp" -nt "$out" ]; then
    mkdir -p "$(dirname "$out")"
    g++ -O2 -std=c++17 -Wall -Wextra "$here/onednn.cpp" -o "$out" -ldnnl
fi
if [ $# -gt 0 ]; then
    OMP_NUM_THREADS=1 exec "$out" "$@"
fi
echo "$out"
