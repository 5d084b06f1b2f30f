#!/bin/sh
# Writes requirements/dev.txt from pyproject.toml, dev.in and docs.in. `make lock` calls it; UPGRADE=--upgrade takes what is newest,
# else a pin that still fits stays.
# One lock serves all Python versions, which is proved by resolving it with each: 3.11 and 3.12 get the same, and 3.13, for which
# the engine has no wheels, nothing but what they get. PYTHON311, PYTHON312 and PYTHON313 name the interpreters when they are not
# called python3.11 and so on.
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
        --output-file="$work/$1.txt" pyproject.toml requirements/dev.in requirements/docs.in
}

resolve 3.11 "${PYTHON311:-python3.11}"
resolve 3.12 "${PYTHON312:-python3.12}"
resolve 3.13 "${PYTHON313:-python3.13}"

pins() { # VERSION
    sed -n 's/^\([A-Za-z0-9._-]*\(\[[^]]*\]\)\{0,1\}==[^ ;]*\).*/\1/p' "$work/$1.txt" | sort
}

if ! diff "$work/3.11.txt" "$work/3.12.txt"; then
    echo "lock: Python 3.11 and 3.12 resolve differently (above). Bound the package in dev.in, or give each version a lock." >&2
    exit 1
fi
pins 3.11 >"$work/3.11.pins"
pins 3.13 >"$work/3.13.pins"
if [ -n "$(comm -13 "$work/3.11.pins" "$work/3.13.pins" | tee "$work/more")" ]; then
    echo "lock: Python 3.13 needs what 3.11 does not: $(tr '\n' ' ' <"$work/more"). Bound the package in dev.in." >&2
    exit 1
fi
{
    echo "# Made by \`make lock\` from pyproject.toml, dev.in and docs.in, for CPython 3.11 and later. Do not edit."
    cat "$work/3.11.txt"
} >requirements/dev.txt
echo "requirements/dev.txt: $(grep -c '==' requirements/dev.txt) packages"
