"""The Python that a contender runs in: the project's own, or one made for it. Called by `contenders.py`.

What other frameworks need is no dependency of the project and may contradict ours, so each gets a virtual environment
below `.cache/`, made from a pinned file the first time it is asked for and kept as long as that file stays the same.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"

#: Seconds for pip to fetch and install some forty wheels; measured: 30.
INSTALL_WITHIN = 600.0


class EnvironmentUnavailable(Exception):
    """A contender's environment could not be made; the text says why."""


@functools.cache
def interpreter(requirements: str) -> Path:
    """The Python of an environment made from a file in this folder. Raises `EnvironmentUnavailable`."""
    pins = Path(__file__).with_name(requirements)
    place = CACHE / f"bench-{pins.stem.removesuffix('-requirements')}"
    python, made_of = place / "bin" / "python", place / "made-of"
    recipe = f"{sys.version}\n{hashlib.sha256(pins.read_bytes()).hexdigest()}\n"
    if made_of.is_file() and made_of.read_text(encoding="utf-8") == recipe:
        return python
    print(f"  making {place.relative_to(ROOT)} from {requirements}, once", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(place))
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(pins))
    made_of.write_text(recipe, encoding="utf-8")  # last, so that one half made is made again
    return python


def pinned(requirements: str) -> dict[str, str]:
    """The versions that a file of pins names, by package."""
    lines = Path(__file__).with_name(requirements).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==")[::2] for line in lines if "==" in line)
    return {name.partition("[")[0]: version for name, version in pairs}


def with_code_of(root: Path, *, foreign: bool = False) -> dict[str, str]:
    """The environment variables under which an interpreter runs the code of a checkout.

    The project is installed as a link to one checkout's `src`; what `PYTHONPATH` names comes before it. A foreign
    interpreter leaves no bytecode of its version behind.
    """
    found = os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "src")))}
    if foreign:
        return found | {"PYTHONDONTWRITEBYTECODE": "1"}
    # What is loaded while it runs is compiled already, as in an installation.
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found | {"PYTHONPYCACHEPREFIX": str(CACHE / "bench-bytecode")}


def checkout(revision: str) -> Path:
    """A checkout of another commit of this repository, below `.cache/`. Raises `EnvironmentUnavailable`."""
    try:
        sha = _run("git", "-C", str(ROOT), "rev-parse", "--verify", "--short=12", f"{revision}^{{commit}}").strip()
    except EnvironmentUnavailable as error:
        raise EnvironmentUnavailable(f"no commit {revision!r} in {ROOT}: {error}") from error
    place = CACHE / f"bench-{sha}"
    if not place.is_dir():
        _run("git", "-C", str(ROOT), "worktree", "prune")
        _run("git", "-C", str(ROOT), "worktree", "add", "--detach", str(place), sha)
    return place


def _run(*command: str) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_WITHIN, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentUnavailable(str(error)) from error
    if answer.returncode != 0:
        raise EnvironmentUnavailable((answer.stderr or answer.stdout).strip().splitlines()[-1])
    return answer.stdout
