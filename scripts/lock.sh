#!/bin/sh
# Writes requirements/dev.txt from pyproject.toml and dev.in. `make lock` calls it; UPGRADE=--upgrade takes what is newest,
# else a pin that still fits stays.
# One lock serves both Python versions, which is proved by resolving it with each. PYTHON311 and PYTHON312 name the
# interpreters when they are not called python3.11 and python3.12.
# Extras stay in the lock (`coverage[toml]==…`): pip takes a pin without the extra for another requirement, one without a hash.
set -eu
cd "$(dirname "$0")/.."

# A lock must not depend on the wheels or the mirror that one machine happens to have.
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_CONSTRAINT || true

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

resolve() { # VERSION INTERPRETER
    "$2" -m venv "$work/$1"
    "$work/$1/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools==7.6.2
    if [ -f requirements/dev.txt ]; then cp requirements/dev.txt "$work/$1.txt"; fi
    "$work/$1/bin/pip-compile" --quiet --all-extras --generate-hashes --no-strip-extras --no-header ${UPGRADE:-} \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --output-file="$work/$1.txt" pyproject.toml requirements/dev.in
}

resolve 3.11 "${PYTHON311:-python3.11}"
resolve 3.12 "${PYTHON312:-python3.12}"

if ! diff "$work/3.11.txt" "$work/3.12.txt"; then
    echo "lock: Python 3.11 and 3.12 resolve differently (above). Bound the package in dev.in, or give each version a lock." >&2
    exit 1
fi
{
    echo "# Made by \`make lock\` from pyproject.toml and dev.in, for CPython 3.11 and 3.12. Do not edit."
    cat "$work/3.11.txt"
} >requirements/dev.txt
echo "requirements/dev.txt: $(grep -c '==' requirements/dev.txt) packages"
