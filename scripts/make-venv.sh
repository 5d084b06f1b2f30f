#!/bin/sh
# Makes the development environment: `make-venv.sh DIR`, called by the Makefile; `--find` only prints the interpreter.
# PYTHON names the interpreter; without it the first that fits of python3.12, python3.11 and python3 on the PATH is taken.
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
        print("lacks the module %s; mend it with: apt-get install python%s-venv" % (error.name, version))
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

# Calls $1 with each candidate that lacks nothing, until it succeeds.
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
    case $tried in
    *"mend it with"*) advice="Do that and run make again, or name another interpreter:" ;;
    *) advice="Install one (apt-get install python3 python3-venv where that is 3.11 or 3.12, else pyenv install 3.12) or name one:" ;;
    esac
    cat >&2 <<MESSAGE
No usable Python. This needs CPython 3.11 or 3.12 with the modules venv and ensurepip: the engine, bytewax, has wheels
for CPython 3.10 to 3.12 only. Tried:${tried:-
  python3.12, python3.11 and python3, none of which is on the PATH}
$advice make PYTHON=/path/to/python3.12 ...
MESSAGE
    exit 1
}

create() {
    "$1" -m venv --clear "$venv" || { rm -rf "$venv"; return 1; }
    echo "$venv: $("$1" --version), $1"
}

identity() {
    "$1" -c 'import sys; print(sys.base_prefix, sys.version)'
}

if [ "${1:?the directory to make}" = "--find" ]; then
    with_interpreter echo
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
