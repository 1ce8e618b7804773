#!/bin/sh
# Stands in for Python in tests: `fake_pip.sh -m pip download ... --dest DIR REQUIREMENT` copies
# `REQUIREMENT.whl` from the folder `wheelhouse` beside DIR's parent; without it, fails as pip does.
# Each call adds a line to the file `asked` there.
while [ $# -gt 1 ]; do
    [ "$1" = "--dest" ] && dest=$2
    shift
done
wheel="$dest/../../wheelhouse/$1.whl"
echo "$1" >>"$dest/../../asked"
if [ -f "$wheel" ]; then
    cp "$wheel" "$dest/"
else
    echo "ERROR: No matching distribution found for $1" >&2
    exit 1
fi
