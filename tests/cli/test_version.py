"""`loom version` and `loom --version` say the same; a script reads JSON."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

from tests.cli.conftest import Loom
from tests.support.engines import bytewax_installed


def test_the_versions_that_a_report_should_name(loom: Loom) -> None:
    told = loom("version")
    assert told.out == loom("--version").out
    first = "bytewax" if bytewax_installed() else "confluent-kafka"
    assert told.out.startswith(f"loom-streaming {version('loom-streaming')} ({first} ")
    found = json.loads(loom("version", "--json").out)
    assert (found["loom-streaming"], found["python"]) == (version("loom-streaming"), platform.python_version())
