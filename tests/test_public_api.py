"""The public interface is what tests/public_api.txt says, and docs/reference/ is generated from it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
HELP = "the public interface or a docstring has changed; if that is meant, run `make reference`"


def loaded() -> Any:
    """The script that writes both."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_reference"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.bytewax
def test_the_public_interface_is_the_one_of_the_snapshot() -> None:
    assert loaded().snapshot() == (ROOT / "tests" / "public_api.txt").read_text(encoding="utf-8"), HELP


@pytest.mark.bytewax
def test_the_reference_is_current() -> None:
    written = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").iterdir()}
    assert loaded().render() == written, HELP
