"""Wheels that are built and installed without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

__all__ = ["EXTRAS", "build_wheel", "install_wheel"]

#: the package that adds a node, a wire format, a sink and a command from outside
EXTRAS = Path(__file__).parent / "extras"


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a project by its build backend, from a copy of its own."""
    source, out = folder / "source", folder / "dist"
    shutil.copytree(project, source, ignore=shutil.ignore_patterns("__pycache__"))
    out.mkdir()
    hook = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", hook, str(out)], cwd=source, check=True, capture_output=True, text=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, target: Path) -> Path:
    """Install a wheel into a folder, as `pip install --no-deps --target` does: without scripts it is only unpacked."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target
