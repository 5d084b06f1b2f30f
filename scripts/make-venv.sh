#!/bin/sh
# Makes the development environment: `make-venv.sh DIR`, called by the Makefile. `--find` only prints what would be used, and
# `--packages` the apt packages that bring it, nothing where none does.
# DEPENDENCIES is `locked` (requirements/dev.txt, the default), or `lowest` or `newest` that pyproject.toml allows, for CI.
# PYTHON names the interpreter; without it the first that fits of python3.12, python3.11, python3.13, python3.14 and python3 on the
# PATH is taken (the engine, bytewax, has wheels for the first two, so they come first), else uv, where it is installed (on the PATH or in ~/.local/bin, where pipx and uv's installer put it), brings one of its own.
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
elif version not in ("3.11", "3.12", "3.13", "3.14"):
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
    for name in python3.12 python3.11 python3.13 python3.14 python3; do
        directories | while IFS= read -r dir; do if [ -x "$dir/$name" ]; then echo "$dir/$name"; fi; done
    done
}

# The directories of the PATH, each once: where /bin is a link to /usr/bin, what is in it is not told twice.
directories() (
    IFS=:
    seen=:
    for dir in $PATH; do
        real=$(cd -P "$dir" 2>/dev/null && pwd) || continue
        case $seen in *":$real:"*) continue ;; esac
        seen=$seen$real:
        echo "$dir"
    done
)

uv_command() {
    command -v uv || { [ -x "${HOME:-}/.local/bin/uv" ] && echo "$HOME/.local/bin/uv"; }
}

# Whether apt knows a version $2 of the package $1.
offers() {
    apt-cache policy "$1" 2>/dev/null | grep -Eq "Candidate: ([0-9]+:)?$2"
}

# The packages of this machine that bring an interpreter that fits, with what a virtual environment needs.
packages() {
    if offers python3 '3[.]1[1234]'; then
        echo python3 python3-venv
        return
    fi
    for version in 12 11 13 14; do
        if offers "python3.$version" "3[.]$version"; then
            echo "python3.$version python3.$version-venv"
            return
        fi
    done
}

advice() {
    sudo="sudo "
    # root needs none, and a bare machine has none
    if [ "$(id -u)" = 0 ]; then sudo=; fi
    found=$(packages)
    command -v make >/dev/null || found="make${found:+ $found}"
    case $found in
    *python*) echo "Install what is missing:  ${sudo}apt-get install $found" ;;
    *)
        if command -v apt-get >/dev/null && [ -z "$(packages_known)" ]; then
            echo "Bring apt's lists up to date and run this again:  ${sudo}apt-get update"
        elif uv_command >/dev/null; then
            if [ -n "$found" ]; then echo "Install what is missing:  ${sudo}apt-get install $found"; fi
            if [ -n "${PYTHON:-}" ]; then
                echo "Or leave PYTHON out: uv, which is installed, brings an interpreter of its own."
            else
                echo "uv fetches an interpreter from github.com. Let it reach that, or bring CPython 3.11 to 3.14 from elsewhere."
            fi
        elif command -v pipx >/dev/null || offers pipx '[0-9]'; then
            command -v pipx >/dev/null || found="${found:+$found }pipx"
            echo "No package here brings one. Install uv, which brings its own:  ${found:+${sudo}apt-get install $found && }pipx install uv"
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
    if [ -z "${PYTHON:-}" ] && uv_command >/dev/null; then
        if "$1" uv; then return; fi
        tried="$tried
  uv: could not make a virtual environment (above)"
    fi
    cat >&2 <<MESSAGE
No usable Python. This needs CPython 3.11 to 3.14 with the modules venv and ensurepip. Tried:${tried:-
  python3.12, python3.11, python3.13, python3.14, python3 and uv, none of which is on the PATH}
$(advice)
MESSAGE
    exit 1
}

create() {
    if [ "$1" = uv ]; then
        # `--seed`: what follows installs with pip. A range: an interpreter that uv already has goes before one to fetch.
        rm -rf "$venv"
        "$(uv_command)" venv --quiet --seed --python 'cpython>=3.11,<3.13' "$venv" || { rm -rf "$venv"; return 1; }
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
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" && return
    cat >&2 <<MESSAGE
pip could not install the packages; its reason is above. Behind a proxy, a mirror or a certificate authority of
your own, tell pip (HTTPS_PROXY, PIP_INDEX_URL, PIP_CERT). Then run this again.
MESSAGE
    exit 1
}
echo "$venv: pip fetches about 80 packages, which takes a minute or more the first time"
case ${DEPENDENCIES:-locked} in
locked) pip --require-hashes -r requirements/dev.txt ;;
lowest | newest)
    "$venv/bin/python" scripts/dependencies.py "$DEPENDENCIES" >"$venv/requirements.txt"
    pip --upgrade -r "$venv/requirements.txt"
    ;;
*)
    echo "DEPENDENCIES is locked, lowest or newest, not $DEPENDENCIES" >&2
    exit 1
    ;;
esac
pip --no-deps --no-build-isolation -e .
touch "$venv/.ready"
