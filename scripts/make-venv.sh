#!/bin/sh
# Makes the development environment: `make-venv.sh DIR`, called by the Makefile. `--find` only prints what would be used, and
# `--packages` the apt packages that bring it, nothing where none does.
# PYTHON names the interpreter; without it the first that fits of python3.12, python3.11 and python3 on the PATH is taken, else
# uv, where it is installed, brings one of its own.
set -eu
cd "$(dirname "$0")/.."

# Prints what interpreter $1 lacks, and nothing when it fits. It is really run: a name on the PATH may be a version
# manager's stub, and some distributions ship `venv` without the `ensurepip` it needs.
lack() {
    "$1" - 2>/dev/null <<'PROBE' || echo "does not run"
import sys
version = "%d.%d" % sys.version_info[:2]
if sys.implementation.name != "cpython":
    print("is %s, not CPython" % sys.implementation.name)
elif version not in ("3.11", "3.12"):
    print("is Python %s" % version)
else:
    try:
        import ensurepip, venv
    except ImportError as error:
        print("lacks the module %s" % error.name)
PROBE
}

candidates() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" || echo "$PYTHON"
        return
    fi
    for name in python3.12 python3.11 python3; do
        (IFS=:; for dir in $PATH; do if [ -x "$dir/$name" ]; then echo "$dir/$name"; fi; done)
    done
}

# Whether apt knows a version $2 of the package $1.
offers() {
    apt-cache policy "$1" 2>/dev/null | grep -Eq "Candidate: ([0-9]+:)?$2"
}

# The packages of this machine that bring an interpreter that fits, with what a virtual environment needs.
packages() {
    if offers python3 '3[.]1[12]'; then
        echo python3 python3-venv
    elif offers python3.12 '3[.]12'; then
        echo python3.12 python3.12-venv
    elif offers python3.11 '3[.]11'; then
        echo python3.11 python3.11-venv
    fi
}

advice() {
    found=$(packages)
    command -v make >/dev/null || found="make${found:+ $found}"
    case $found in
    *python*) echo "Install what is missing:  sudo apt-get install $found" ;;
    *)
        if command -v apt-get >/dev/null && [ -z "$(packages_known)" ]; then
            echo "Bring apt's lists up to date and run this again:  sudo apt-get update"
        elif offers pipx '[0-9]'; then
            echo "No package here brings one. Install uv, which brings its own:  sudo apt-get install ${found:+$found }pipx && pipx install uv"
            echo "(and have ~/.local/bin on the PATH: pipx ensurepath)"
        else
            echo "Install${found:+ make, and} uv, which brings an interpreter of its own (pipx install uv)."
        fi
        ;;
    esac
    echo "Then run this again, or name an interpreter:  make PYTHON=/path/to/python3.12 ..."
}

packages_known() {
    apt-cache policy python3 2>/dev/null | grep "Candidate: [0-9]"
}

# Calls $1 with each candidate that lacks nothing, until it succeeds; with `uv` at last.
with_interpreter() {
    tried=
    while IFS= read -r candidate; do
        [ -n "$candidate" ] || continue
        problem=$(lack "$candidate")
        if [ -z "$problem" ]; then
            if "$1" "$candidate"; then return; fi
            problem="could not make a virtual environment (above)"
        fi
        tried="$tried
  $candidate: $problem"
    done <<LIST
$(candidates)
LIST
    if [ -z "${PYTHON:-}" ] && command -v uv >/dev/null; then
        if "$1" uv; then return; fi
        tried="$tried
  uv: could not make a virtual environment (above)"
    fi
    cat >&2 <<MESSAGE
No usable Python. This needs CPython 3.11 or 3.12 with the modules venv and ensurepip: the engine, bytewax, has wheels
for CPython 3.10 to 3.12 only. Tried:${tried:-
  python3.12, python3.11, python3 and uv, none of which is on the PATH}
$(advice)
MESSAGE
    exit 1
}

create() {
    if [ "$1" = uv ]; then
        # `--seed`: what follows installs with pip.
        rm -rf "$venv"
        uv venv --quiet --seed --python 3.12 "$venv" || { rm -rf "$venv"; return 1; }
    else
        "$1" -m venv --clear "$venv" || { rm -rf "$venv"; return 1; }
    fi
    echo "$venv: $("$venv/bin/python" --version), $1"
}

identity() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version)'
}

if [ "${1:?the directory to make}" = "--find" ]; then
    with_interpreter echo
    exit
elif [ "$1" = "--packages" ]; then
    packages
    exit
fi

venv=$1
rm -f "$venv/.ready"
if [ -x "$venv/bin/python" ] && [ -z "$(lack "$venv/bin/python")" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
    { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$venv/bin/python")" ]; }; then
    echo "$venv: brought up to date"
else
    with_interpreter create
    # Half an environment is worse than none: the next run would take it for a whole one.
    trap '[ -e "$venv/.ready" ] || rm -rf "$venv"' EXIT
fi

pip() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
pip --require-hashes -r requirements/dev.txt
pip --no-deps --no-build-isolation -e .
touch "$venv/.ready"
