#!/usr/bin/env bash
#   venv.sh [REQUIREMENTS [PIP-OPTION...]]
# Prints the path of a Python that has REQUIREMENTS (a file beside this one; default: requirements.txt) installed, making its
# virtual environment on first use. That lies outside the checkout and is named after the requirements and options, so a
# changed pin makes a new one.
# PYTHON chooses the interpreter it is made from (default: the first of python3, python3.13 .. python3.10 that fits).
set -euo pipefail

requirements="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/${1:-requirements.txt}"
options=("${@:2}")

fits() {
    command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

base=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if fits "$candidate"; then base="$candidate"; break; fi
done
if [ -z "$base" ]; then
    echo "venv.sh: needs Python 3.10 or newer (the pinned onnx does): install python3, or set PYTHON" >&2
    exit 1
fi

version="$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
key="$( (cat "$requirements"; echo "$version${options[*]+ ${options[*]}}") | sha256sum | cut -c1-16)"
venv="${XDG_CACHE_HOME:-$HOME/.cache}/lehr/venv-$key"

if [ ! -e "$venv/complete" ]; then
    if ! "$base" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "venv.sh: $base lacks venv or pip: apt-get install python3-venv (or python$version-venv)" >&2
        exit 1
    fi
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$base" -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}" -r "$requirements" >&2
    touch "$venv/complete"
fi
echo "$venv/bin/python"
