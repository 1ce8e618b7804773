#!/usr/bin/env bash
# Release files for Linux: a static binary (musl) in a tar archive, and the wheel that carries the same binary, with their
# sha256. Runs on any Linux of that architecture, whatever its C library.
#
#   packaging/release.sh [OUT]        # OUT: dist
#
# Needs rustup and Python 3 with venv; maturin and the C compiler (zig) come from the Python package index.
# Environment: TARGET (x86_64-unknown-linux-musl, or aarch64-unknown-linux-musl), FEATURES (none; mistralrs).
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="$(realpath -m "${1:-$repository/dist}")"
cd "$repository"
target="${TARGET:-x86_64-unknown-linux-musl}" features="${FEATURES-}"
tools="${CARGO_TARGET_DIR:-target}/release-tools"

rustup target add "$target"
[ -x "$tools/bin/maturin" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet maturin==1.16.0 ziglang==0.17.1 wheel==0.45.1
PATH="$(realpath "$tools")/bin:$PATH"

mkdir -p "$out"
# Of an earlier release, and nothing else that lies there.
rm -f "$out"/galen-*.whl "$out"/galen-*.tar.gz "$out"/SHA256SUMS
maturin build --release --locked --strip --zig --target "$target" --compatibility musllinux_1_2 \
    ${features:+--features "$features"} --out "$out"
# A static binary asks nothing of a C library: one wheel for all.
arch="${target%%-*}"
wheel tags --remove --platform-tag "manylinux_2_17_$arch.musllinux_1_2_$arch" "$out"/galen-*.whl >/dev/null
wheel="$(ls "$out"/galen-*.whl)"
name="$(basename "$wheel")"
version="${name#galen-}"
name="galen-${version%%-*}-$target"

# The archive holds the wheel's own binary: both are one build.
staging="$(mktemp -d)"
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/$name"
python3 -m zipfile -e "$wheel" "$staging/wheel"
install -m 755 "$staging"/wheel/galen-*.data/scripts/galen "$staging/$name/galen"
cp README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$staging/$name/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$staging" -czf "$out/$name.tar.gz" "$name"
(cd "$out" && sha256sum -- *.whl *.tar.gz >SHA256SUMS)
[ "$arch" != "$(uname -m)" ] || "$staging/$name/galen" --version
cat "$out/SHA256SUMS"
