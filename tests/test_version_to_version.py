"""What every released version has left behind is understood by this one: a flow continues where the older version was.

The files are in `tests/data/state/VERSION`; `tests/support/stored_state.py` has written them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loom.cli.records import record_from
from loom.streaming.kafka.dead_letters import letter_reader
from loom.streaming.kafka.offset_metadata import OffsetMetadata, escaped
from loom.streaming.kafka.replay_marks import ReplayMarks
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.exactly_once import transactional_id
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.recovery_directory import opened_store
from loom.streaming.runtime.settings import BytewaxRecoverySettings
from tests.support.stored_state import LINES, RUN, STATES, version

VERSIONS = sorted(path.name for path in STATES.iterdir())


@pytest.fixture(params=VERSIONS)
def state(request: pytest.FixtureRequest) -> Path:
    """The files of one version."""
    return STATES / str(request.param)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_this_version_has_its_files() -> None:
    assert version() in VERSIONS, "python -m tests.support.stored_state"


def test_what_stands_beside_committed_offsets_is_understood(state: Path) -> None:
    for one in read(state / "offset_metadata.json"):
        assert OffsetMetadata.parse(one["text"]) == OffsetMetadata(**one["says"])


def test_the_transactional_ids_of_the_older_version_are_fenced(state: Path) -> None:
    for group, flow, index, had in read(state / "transactional_ids.json"):
        assert transactional_id(group, escaped(flow), index) == had


def test_what_was_replayed_is_not_replayed_again(state: Path) -> None:
    marks = ReplayMarks({"orders.errors": "topic-id"})
    marks.load(_Marks(read(state / "replay_marks.json")), [])  # type: ignore[arg-type]
    found = [offset for offset in (0, 1, 4999, 5000, 5001) if ("orders.errors", 1, offset) in marks]
    assert found == [0, 5000]


class _Marks:
    """In the place of a reader of the topic of marks."""

    def __init__(self, stored: dict[str, str]) -> None:
        self._stored = stored

    def ranges(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Any]:
        return {}

    def read(self, *_: object) -> list[KafkaRecord]:
        return [KafkaRecord("marks", key.encode(), base64.b64decode(value)) for key, value in self._stored.items()]


@pytest.mark.parametrize("wire_format", ["json", "envelope"])
def test_dead_letters_are_read_with_everything_they_say(state: Path, wire_format: str) -> None:
    stored = read(state / "dead_letters.json")[wire_format]
    letter = letter_reader()(record_from(stored, "orders.errors", "the stored letter"))
    assert (letter.written_by, letter.kind, letter.step, letter.path) == ("loom", "task", "orders.price", (1, 0))
    assert (letter.reason, letter.error_type, letter.at) == ("no price", "builtins.KeyError", "shop.py:19")
    assert (letter.flow, letter.count) == ("orders", 1)
    original = letter.original
    assert (original.topic, original.partition, original.offset) == ("orders.raw", 3, 17)
    assert (original.key, original.value) == (b"k", b'{"id": 1}')


@pytest.mark.bytewax
def test_a_recovery_store_is_opened_again(state: Path, tmp_path: Path) -> None:
    from bytewax.recovery import init_db_dir

    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    shutil.copy(state / "loom-store-0.json", tmp_path)
    with opened_store(BytewaxRecoverySettings(str(tmp_path)), "orders", Layout(), lambda *_: None):
        assert read(tmp_path / "loom-store-0.json")["generation"] == 2


def test_a_run_over_a_file_that_was_killed_is_completed(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backfill"
    shutil.copytree(state / "backfill", folder)
    results = folder / "results" / "out.jsonl"
    before = read(folder / "results" / ".checkpoint.json")
    assert 0 < before["lines"] < LINES
    with results.open("a") as file:
        file.write('{"n": "written behind the checkpoint"}\n')
    command = [sys.executable, "-m", "loom.cli.main", *RUN]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, "KILLED_AT": "-1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"continues behind line {before['lines']}" in run.stdout
    assert [json.loads(line)["n"] for line in results.read_text().splitlines()] == list(range(LINES))
