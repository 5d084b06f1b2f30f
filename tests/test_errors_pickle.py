"""Every exception class of the project crosses a process boundary as it was raised."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import loom
from loom.core.config import ConfigError, ConfigProblem
from loom.core.config.field_error import FieldError
from loom.core.errors import DomainError
from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.bytewax import ForcedShutdownError, UnroutedRecordError
from loom.streaming.compiler import Code, CompilationError, Issue, Severity
from loom.streaming.compiler.signatures import UnreadableSignature
from loom.streaming.kafka.format_settings import _UnknownFormatField
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.nodes.retry import RetryAfter
from loom.streaming.runtime.run_errors import ProcessKilledError, RunEndedError
from loom.streaming.testing import StreamingTestRunner
from tests.support.engines import importable
from tests.support.waiting import LONG_S


class Refused(DomainError):
    """As an author writes one: its constructor takes something else than its text."""

    def __init__(self, order: int, *, why: str) -> None:
        self.order = order
        super().__init__(f"order {order}: {why}")


FORCED = ForcedShutdownError("it took too long")
FORCED.signal = 15
#: those whose constructors take something of their own
MADE: dict[type[BaseException], BaseException] = {
    type(error): error
    for error in (
        ConfigError([ConfigProblem("loom.yaml", "kafka.consumer", "unknown key", "consumer")]),
        FieldError("batch_size", "must be at least 1", "raise it"),
        CompilationError("orders", [Issue(Code.NO_END, Severity.ERROR, "output", (1, 0), "it has none")]),
        UnroutedRecordError("orders", ErrorKind.TASK, "orders.price", "orders.raw[0]@7", "no price"),
        ProcessKilledError("killed by SIGABRT"),
        RunEndedError("orders", "orders.price", "orders.raw[0]@7", SystemExit(3)),
        UnreadableSignature("it takes two messages", "take one"),
        UnreadableHeadersError(),
        RetryAfter(30, "429"),
        _UnknownFormatField("format takes 'json' or 'bytes', not 'xml'"),
        Refused(7, why="no stock"),
        FORCED,
    )
}


def classes() -> Iterator[type[BaseException]]:
    seen: set[type] = set()
    for module in pkgutil.walk_packages(loom.__path__, "loom."):
        if not importable(module.name):
            continue
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and issubclass(found, BaseException) and found.__module__.startswith("loom."):
                seen.add(found)
    yield from sorted(seen, key=lambda found: (found.__module__, found.__qualname__))
    yield Refused


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__qualname__)
def test_an_error_is_pickled_whole(kind: type[BaseException]) -> None:
    error = MADE[kind] if "__init__" in vars(kind) or kind in MADE else kind("what went wrong")
    error.add_note("while pricing")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


class Order(LoomFrozenStruct):
    id: int


@step
def fails(order: Order) -> Order:
    raise ValueError("no price")


def run() -> None:
    flow = StreamFlow("orders", FromTopic("raw", Order), Process(fails), IntoTopic("priced", Order))
    StreamingTestRunner.from_flow(flow).with_payloads([Order(1)]).run()


def test_a_failed_run_is_told_by_the_process_that_asked_for_it() -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool,
        pytest.raises(UnroutedRecordError, match="no price") as raised,
    ):
        pool.submit(run).result(timeout=LONG_S)
    assert (raised.value.flow, raised.value.kind, raised.value.step_id) == ("orders", ErrorKind.TASK, "orders.fails")
