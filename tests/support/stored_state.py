"""What a version leaves behind and a later one must continue from: written once for each version, and read by all that follow.

`python -m tests.support.stored_state` writes the files of the version in pyproject.toml into `tests/data/state/VERSION`. It is
part of a release; the files of a version that is out are never written again.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from loom.cli.records import plain, record_document
from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.headers import Headers
from loom.streaming.kafka.dead_letter import dead_letter_writer
from loom.streaming.kafka.offset_metadata import OffsetMetadata, escaped
from loom.streaming.kafka.replay_marks import ReplayMarks
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.exactly_once import transactional_id
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.recovery_directory import opened_store
from loom.streaming.runtime.settings import BytewaxRecoverySettings

ROOT = Path(__file__).resolve().parents[2]
STATES = ROOT / "tests" / "data" / "state"

#: how many lines the run over a file has, and at which it is killed
LINES, KILLED_AT = 400, 250
FLOW = """\
import os
import signal

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    if number.n == int(os.environ.get("KILLED_AT", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    return number


flow = StreamFlow("counting", FromTopic("in", Number), Process(same), IntoTopic("out"), IntoTopic("bad"))
"""
CONFIG = """\
kafka:
  consumer: {brokers: ["127.0.0.1:1"], group_id: counting, delivery: at_least_once, batch_size: 10}
  producer: {brokers: ["127.0.0.1:1"]}
streaming: {runtime: {epoch_interval_ms: 1}}
"""
RUN = ("run", "counting:flow", "-c", "config.yaml", "--source", "numbers.jsonl", "--output", "results")


def version() -> str:
    """The version in pyproject.toml."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found


def write(folder: Path) -> None:
    """Write all files of the version that is checked out."""
    folder.mkdir(parents=True)
    metadata = [
        OffsetMetadata("orders", "6f3c0a1b2c3d4e5f", "fixed", 3, 12),
        OffsetMetadata(escaped("sales & more@shop"), "0123456789abcdef", "group", None, 4),
    ]
    _json(
        folder / "offset_metadata.json",
        [
            {"text": one.render(), "says": {name: getattr(one, name) for name in one.__struct_fields__}}
            for one in metadata
        ],
    )
    writers = [("shop", "orders", 0), ("shop", "orders", 2), ("a@b", "sales & more@shop", "pod-1")]
    _json(
        folder / "transactional_ids.json",
        [[group, flow, index, transactional_id(group, escaped(flow), index)] for group, flow, index in writers],
    )
    marks = ReplayMarks({"orders.errors": "topic-id"}).mark([("orders.errors", 1, 0), ("orders.errors", 1, 5000)])
    _json(
        folder / "replay_marks.json",
        {key.decode(): base64.b64encode(value).decode() for key, value in marks.items()},
    )
    _json(folder / "dead_letters.json", {name: _letter(name) for name in ("json", "envelope")})
    with tempfile.TemporaryDirectory() as made:
        with opened_store(BytewaxRecoverySettings(made), "orders", Layout(), lambda *_: None):
            pass
        (folder / "loom-store-0.json").write_bytes((Path(made) / "loom-store-0.json").read_bytes())
    _backfill(folder / "backfill")


def _json(file: Path, found: Any) -> None:
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _letter(wire_format: str) -> dict[str, Any]:
    envelope: ErrorEnvelope[Any] = ErrorEnvelope(
        ErrorKind.TASK,
        "no price",
        step_id="orders.price",
        path=(1, 0),
        error_type="builtins.KeyError",
        source=KafkaRecord("orders.raw", b"k", b'{"id": 1}', Headers([("h", b"\xff")]), 3, 17, 1_700_000_000_000),
        at="shop.py:19",
        attempts=2,
    )
    record = dead_letter_writer(wire_format)(envelope, "orders")
    return record_document(record, plain(record.value or b""))


def _backfill(folder: Path) -> None:
    """A run over a file that is killed, as it leaves its folder."""
    folder.mkdir()
    (folder / "counting.py").write_text(FLOW)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "numbers.jsonl").write_text("".join(f'{{"n":{n}}}\n' for n in range(LINES)))
    command = [sys.executable, "-m", "loom.cli.main", *RUN]
    subprocess.run(command, cwd=folder, env=os.environ | {"KILLED_AT": str(KILLED_AT)}, check=False)


if __name__ == "__main__":
    write(STATES / version())
    print(f"written: {(STATES / version()).relative_to(ROOT)}")
