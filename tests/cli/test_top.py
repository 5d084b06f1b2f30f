"""`loom top`: it finds the processes of a flow, shows them joined, and says what it is where none answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loom.cli.exit_codes import EndpointError, Exit
from loom.cli.live_endpoint import Answers, Endpoints
from loom.cli.live_joined import joined
from loom.cli.live_top import watch
from loom.streaming.runtime.telemetry.live_document import LiveDocument
from tests.cli.conftest import Loom
from tests.support.running import NOBODY


def node(id: str, **fields: Any) -> dict[str, Any]:
    numbers = {"came": 10, "left": 8, "came_per_s": 5.0, "left_per_s": 4.0, "batch_s": 0.002}
    counts = dict.fromkeys(("failed", "dropped", "retries", "buffered", "open_circuits"), 0)
    texts = {"form": "box", "step_id": f"everything.{id}", "title": f"everything.{id}", "said": [], "topics": []}
    history = {"came_per_s": [1.0, 2.0], "failed_per_s": [0.0, 0.0]}
    more = {"id": id, "inside": True, "estimated": False, "failed_per_s": 0.0, "history": history}
    return {**numbers, **counts, **texts, **more, **fields}


def document(index: int = 0, of: int = 1, **fields: Any) -> dict[str, Any]:
    """What a process might tell."""
    error = {"kind": "task", "step": "everything.positive", "error_type": "ValueError", "reason": "a negative number"}
    place = {"raised_at": "/somewhere/flows.py:12", "topic": "numbers", "partition": index, "offset": 7}
    part = {"read_offset": 90, "committed_offset": 80, "end_offset": 100 + index, "lag_records": 20 + index}
    series = {name: [1.0, None, 3.0] for name in ("read_per_s", "written_per_s", "failed_per_s", "lag_records")}
    series |= {name: [1.0, None, 3.0] for name in ("lag_seconds", "latency_p95_s", "in_flight", "buffered")}
    totals = {"read": 10, "written": 8, "dropped": 1, "failed": 1, "durable": 8, "refused": 0, "lost": 0}
    now = {
        "read_per_s": 5.0,
        "written_per_s": 4.0,
        "failed_per_s": 0.5,
        "latency_p50_s": 0.1,
        "latency_p95_s": 0.4 + index,
    }
    step = node("n0", step_id="everything.positive", title="everything.positive", failed=1)
    return {
        "version": 1,
        "flow": "everything",
        "at": 1_800_000_060.0,
        "state": "running",
        "delivery": "at_least_once",
        "group": "readers",
        "process": {
            "index": index,
            "of": of,
            "instance": f"host-{index}",
            "pid": 1,
            "version": "0.1.0",
            "started_at": 1_800_000_000.0,
        },
        "health": [],
        "readiness": [{"name": "brokers", "ok": True, "detail": ""}],
        "totals": {**totals, "retries": 0, "recoveries": 0, "rebalances": 0, "restarts": index},
        "now": {**now, "lag_records": 20 + index, "lag_seconds": 3.0 + index, "in_flight": 2, "buffered": 4},
        "nodes": [node("source", topics=["numbers"]), step],
        "edges": [{"source": "source", "target": "n0", "title": None, "errors": False}],
        "partitions": [{"topic": "numbers", "partition": index, "worker": 0, "lag_seconds": 3.0, **part}],
        "errors": [
            {**error, **place, "first_at": 1_800_000_000.0 + index, "last_at": 1_800_000_000.0 + index, "count": 1}
        ],
        "history": {"every_s": 5.0, "last_at": 1_800_000_000.0, **series, "ready": [1.0, 1.0, 1.0]},
        **fields,
    }


def told(*documents: dict[str, Any]) -> list[LiveDocument]:
    return [msgspec.convert(one, LiveDocument) for one in documents]


def observed(loom: Loom, section: dict[str, Any]) -> Path:
    """A config with this section."""
    return loom.config(lambda made: made.update(observability=section))


@contextmanager
def answering(content: bytes, port: int = 0) -> Iterator[int]:
    """Something that answers every request with the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def two_processes() -> Iterator[int]:
    """The first port of two processes of a flow."""
    for _ in range(20):
        with ExitStack() as stack:
            first = stack.enter_context(answering(json.dumps(document(0, 2)).encode()))
            try:
                stack.enter_context(answering(json.dumps(document(1, 2)).encode(), first + 1))
            except (OSError, OverflowError):
                continue
            yield first
            return


def test_an_address_is_enough(loom: Loom) -> None:
    with answering(json.dumps(document()).encode()) as port:
        found = loom("top", f"http://127.0.0.1:{port}/", "--once")
    assert (found.code, found.err) == (0, "")
    for shown in ("everything  running", "5/s", "up to 3.0 s behind", "400 ms", "numbers", "positive", "2.00 ms", "▃"):
        assert shown in found.out, shown
    assert "task in everything.positive: a negative number  flows.py:12" in found.out


def test_the_config_of_a_flow_names_its_processes_which_are_shown_joined(loom: Loom, two_processes: int) -> None:
    config = observed(loom, {"prometheus": {"config": {"port": two_processes}}})
    found = loom("top", "flows:everything", "--config", config)
    assert (found.code, found.err) == (0, "")
    for shown in ("2 processes", "10/s", "1 of 2", "host-1", "2 partitions; furthest behind: numbers[1], 21 records"):
        assert shown in found.out, shown
    as_json = loom("top", "flows:everything", "--config", config, "--json")
    assert [one["process"]["index"] for one in json.loads(as_json.out)] == [0, 1]


def test_what_cannot_be_added_up_is_the_worst_of_all() -> None:
    both = joined(told(document(0, 2), document(1, 2, state="not ready")))
    assert both.state == "not ready"
    assert (both.now.read_per_s, both.now.lag_records, both.now.buffered) == (10.0, 41, 8)
    assert (both.now.lag_seconds, both.now.latency_p95_s) == (4.0, 1.4)
    assert [(one.came, one.came_per_s, one.batch_s) for one in both.nodes] == [(20, 10.0, 0.002)] * 2
    assert both.history.read_per_s == (2.0, None, 6.0)
    assert both.history.ready == (1.0, 1.0, 1.0)
    assert [one.partition for one in both.partitions] == [0, 1]
    assert both.errors[0].partition == 1
    assert both.totals.restarts == 1


def test_where_nothing_answers_the_message_says_what_to_look_for(loom: Loom) -> None:
    port = int(NOBODY.rpartition(":")[2])
    found = loom("top", NOBODY, "--once")
    assert found.code == Exit.ENVIRONMENT
    assert f"nothing answers at http://{NOBODY}" in found.err
    config = observed(loom, {"prometheus": {"config": {"port": port}}})
    named = loom("top", "flows:everything", "--config", config)
    assert named.code == Exit.ENVIRONMENT
    assert "metrics_server_started" in named.err


@pytest.mark.parametrize("content", [b"<html>", b"{}", b'{"version": 2}'])
def test_what_is_no_flow_is_not_shown_as_one(loom: Loom, content: bytes) -> None:
    with answering(content) as port:
        found = loom("top", str(port), "--json")
    assert (found.code, found.out) == (Exit.ENVIRONMENT, "")
    assert f"what answers at http://127.0.0.1:{port} is no flow of Loom" in found.err


def test_another_flow_on_the_port_is_named(loom: Loom) -> None:
    with answering(json.dumps(document(flow="other")).encode()) as port:
        config = observed(loom, {"prometheus": {"config": {"port": port}}})
        found = loom("top", "flows:everything", "--config", config)
    assert found.code == Exit.ENVIRONMENT
    assert "is 'other', not 'everything'" in found.err


@pytest.mark.parametrize(
    ("section", "said"), [({}, "is off"), ({"prometheus": {"config": {"port": 0}}}, "0 is any free port")]
)
def test_a_config_without_a_port_is_an_error_of_the_config(loom: Loom, section: dict[str, Any], said: str) -> None:
    found = loom("top", "flows:everything", "--config", observed(loom, section))
    assert found.code == Exit.CONFIG
    assert said in found.err
    assert "observability.prometheus" in found.err


def test_a_flow_beside_an_address_is_a_usage_error(loom: Loom) -> None:
    assert loom("top", "flows:everything", ":9100", "--config", loom.config()).code == Exit.USAGE


def test_a_process_that_goes_away_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Going(Endpoints):
        asked = 0

        def ask(self) -> Answers:
            self.asked += 1
            if self.asked == 2:
                raise EndpointError("nothing answers at http://127.0.0.1:1")
            return Answers(tuple(told(document(state="stopping" if self.asked > 2 else "running"))), ())

    pauses = iter([1.0, 1.0])

    def sleep(seconds: float) -> None:
        if next(pauses, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "50")
    monkeypatch.setattr("loom.cli.live_top.time.sleep", sleep)
    watch(Going([]), 1.0)
    shown = capsys.readouterr().out
    assert shown.index("running") < shown.index("no answer for") < shown.index("stopping")
