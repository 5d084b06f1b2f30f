"""`loom graph`: the plan as a picture or as data, on standard output or in a file."""

from __future__ import annotations

import json

import pytest

from loom.cli.exit_codes import Exit
from loom.streaming.compiler.explain.formats import FORMATS
from tests.cli.conftest import Loom


def test_a_flow_is_drawn_as_a_flowchart(loom: Loom) -> None:
    told = loom("graph", "flows:everything", "--config", loom.config())
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("flowchart TD\n")
    for part in ("everything.positive", "topic out", "topic refused", "topic errors"):
        assert part in told.out


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_can_be_asked_for(loom: Loom, format: str) -> None:
    told = loom("graph", "flows:everything", "-c", loom.config(), "--format", format)
    assert (told.code, told.err) == (0, "")
    assert ("everything.positive" if format != "asyncapi" else "x-error-reason") in told.out


def test_what_is_written_to_a_file_is_what_would_have_been_printed(loom: Loom) -> None:
    config = loom.config()
    printed = loom("graph", "flows:everything", "-c", config, "-f", "json")
    told = loom("graph", "flows:everything", "-c", config, "-f", "json", "--output", "plan.json")
    assert (told.code, told.out, told.err) == (0, "", "")
    written = (loom.directory / "plan.json").read_text(encoding="utf-8")
    assert written == printed.out
    assert json.loads(written)["flow"] == "everything"


def test_a_flow_that_does_not_compile_is_not_drawn(loom: Loom) -> None:
    told = loom("graph", "flows:mistyped", "-c", loom.config(), "-o", "plan.mmd")
    assert told.code == Exit.COMPILATION
    assert "type-mismatch" in told.err
    assert not (loom.directory / "plan.mmd").exists()


def test_an_unknown_format_is_a_usage_error_that_names_the_known_ones(loom: Loom) -> None:
    told = loom("graph", "flows:everything", "-c", loom.config(), "--format", "dot")
    assert told.code == Exit.USAGE
    for known in FORMATS:
        assert known in told.err


def test_a_file_that_cannot_be_written_is_told(loom: Loom) -> None:
    told = loom("graph", "flows:everything", "-c", loom.config(), "-o", "nowhere/at/all.mmd")
    assert told.code != 0
    (message,) = told.messages
    assert "nowhere/at/all.mmd" in message
