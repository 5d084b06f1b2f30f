"""What docs/cli.md shows is what a reader sees; the transcripts that need a broker are typed in `tests/kafka`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from loom.cli.app import app
from tests.support.fork_server import ForkServer
from tests.support.transcripts import Reader, is_true, transcripts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


@pytest.mark.bytewax
def test_the_transcripts_that_need_no_broker_are_true(tmp_path: Path, fork_server: ForkServer) -> None:
    reader = Reader(tmp_path, {"PYTHONUNBUFFERED": "1"}, server=fork_server)
    for command in transcripts(PAGE, ""):
        printed = reader.types(command)
        assert is_true(command, printed), f"cli.md:{command.line}: {command.text}\n" + "\n".join(printed)


def test_every_command_has_a_transcript_on_the_page() -> None:
    group = typer.main.get_group(app)
    context = typer.Context(group)
    names = []
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        inner = found.list_commands(context) if hasattr(found, "list_commands") else []
        names += [f"{name} {one}" for one in inner] or [name]
    shown = {command.text for info in ("", "kafka") for command in transcripts(PAGE, info)}
    without = [name for name in names if not any(re.match(rf"loom {name}\b", text) for text in shown)]
    assert without == []
