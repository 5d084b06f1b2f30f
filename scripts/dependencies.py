"""Prints what to install beside the project: `dependencies.py lowest` or `newest`, called by `make-venv.sh`.

`lowest` gives the lower bound of every runtime dependency and extra in pyproject.toml as a pin, so that a bound that is too
low fails a test. `newest` gives no pins at all. The tools of requirements/dev.in are the newest in both.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?\s*(?:>=|~=|==)\s*(?P<version>[\w.]+)")


def lowest(requirements: list[str]) -> Iterator[str]:
    """Each requirement pinned to its lower bound, markers included.

    >>> list(lowest(["rich>=13.7,<16", "uvloop>=0.20,<1; platform_system != 'Windows'"]))
    ['rich==13.7', "uvloop==0.20; platform_system != 'Windows'"]
    """
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        bound = _BOUND.match(wanted.strip())
        if bound is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        yield f"{bound['name']}=={bound['version']}" + (f"; {marker.strip()}" if marker else "")


def main(which: str) -> int:
    """Print requirements, one a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runtime = [*project["dependencies"]]
    for extra in project.get("optional-dependencies", {}).values():
        runtime += extra
    tools = (ROOT / "requirements" / "dev.in").read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in tools if line.strip() and not line.startswith("#")))
    print("\n".join(lowest(runtime) if which == "lowest" else runtime))
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["lowest"], ["newest"]):
        sys.exit("usage: dependencies.py lowest|newest")
    sys.exit(main(sys.argv[1]))
