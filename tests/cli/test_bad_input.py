"""Whatever a person gets wrong: the documented exit code, one message that names it, and no traceback unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from tests.cli.conftest import SECRET, Loom, Told
from tests.support.fork_server import ForkServer

Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Case:
    """One mistake, and what must be said of it."""

    code: Exit
    tells: tuple[str, ...]
    flow: str = "flows:numbers"
    config: Change | str | None = None
    arguments: tuple[str, ...] = ()
    command: str = "check"


def consumer(**more: Any) -> Change:
    return lambda config: config["kafka"]["consumer"].update(more)


def producer(**more: Any) -> Change:
    return lambda config: config["kafka"]["producer"].update(more)


def streaming(**sections: Any) -> Change:
    return lambda config: config.update(streaming=sections)


def renamed(*path: str, to: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        for name in path[:-1]:
            config = config[name]
        config[to] = config.pop(path[-1])

    return change


CASES = {
    "no-colon": Case(Exit.USAGE, ("'flows'", "MODULE:FLOW"), flow="flows"),
    "unknown-module": Case(Exit.USAGE, ("no module 'flosw'",), flow="flosw:numbers"),
    "unknown-submodule": Case(Exit.USAGE, ("no module 'flows.inner'",), flow="flows.inner:numbers"),
    "unknown-flow": Case(Exit.USAGE, ("'numbrs'", "did you mean flows:numbers?"), flow="flows:numbrs"),
    "no-flow": Case(Exit.USAGE, ("flows:positive", "not a StreamFlow"), flow="flows:positive"),
    "broken-module": Case(Exit.FAILED, ("SyntaxError",), flow="broken:flow"),
    "failing-module": Case(Exit.FAILED, ("ZeroDivisionError",), flow="failing:flow"),
    "importing-module": Case(Exit.FAILED, ("ModuleNotFoundError", "'nowhere_to_be_found'"), flow="importing:flow"),
    "no-yaml": Case(Exit.CONFIG, ("not valid YAML", "line 3"), config=f"kafka:\n  sasl_password: [{SECRET}\n  x: }}"),
    "no-mapping": Case(Exit.CONFIG, ("loom.yaml",), config=f"- {SECRET}\n"),
    "empty": Case(Exit.CONFIG, ("kafka.consumer", "kafka.producer"), config=""),
    "unknown-key": Case(
        Exit.CONFIG,
        ("kafka.consumer.group_idd", "group_id", "loom.yaml"),
        config=renamed("kafka", "consumer", "group_id", to="group_idd"),
    ),
    "unknown-section": Case(
        Exit.CONFIG, ("kafka.consumr", "consumer"), config=renamed("kafka", "consumer", to="consumr")
    ),
    "mistyped-section": Case(Exit.CONFIG, ("'kafak'", "did you mean 'kafka'?"), config=renamed("kafka", to="kafak")),
    "step-section": Case(
        Exit.CONFIG,
        ("pricing.currancy", "did you mean 'currency'?"),
        flow="priced:flow",
        config=lambda config: config.update(pricing={"currancy": "EUR"}),
    ),
    "step-section-of-wrong-type": Case(
        Exit.CONFIG,
        ("pricing.currency", "expected `str`"),
        flow="priced:flow",
        config=lambda config: config.update(pricing={"currency": [1]}),
    ),
    "step-that-refuses-its-section": Case(
        Exit.CONFIG,
        ("Price", "three letters"),
        flow="priced:flow",
        config=lambda config: config.update(pricing={"currency": "EURO"}),
    ),
    "step-override": Case(
        Exit.COMPILATION,
        ("step-arguments", "currancy"),
        flow="priced:mistyped",
        config=lambda config: config.update(pricing={"currency": "EUR"}),
    ),
    "epoch-beyond-a-transaction": Case(
        Exit.CONFIG,
        ("epoch_interval_ms",),
        config=lambda config: (
            config["kafka"]["consumer"].update(delivery="exactly_once"),
            config.update(streaming={"runtime": {"epoch_interval_ms": 50_000}}),
        ),
    ),
    "missing-key": Case(
        Exit.CONFIG, ("kafka.producer.brokers",), config=lambda config: config["kafka"]["producer"].pop("brokers")
    ),
    "wrong-type": Case(Exit.CONFIG, ("kafka.consumer.batch_size", "int"), config=consumer(batch_size=[SECRET])),
    "secret-of-wrong-type": Case(
        Exit.CONFIG,
        ("kafka.producer.security.sasl_password",),
        config=producer(security={"sasl_password": [SECRET]}),
    ),
    "unknown-choice": Case(Exit.CONFIG, ("kafka.consumer.delivery",), config=consumer(delivery="at_leest_once")),
    "contradiction": Case(
        Exit.CONFIG, ("at_least_once", "enable_auto_commit"), config=consumer(enable_auto_commit=True)
    ),
    "guarantee-redefined": Case(Exit.CONFIG, ("kafka.producer.extra", "acks"), config=producer(extra={"acks": 1})),
    "secret-redefined": Case(
        Exit.CONFIG, ("sasl.password", "security.sasl_password"), config=consumer(extra={"sasl.password": SECRET})
    ),
    "variable-not-set": Case(
        Exit.CONFIG, ("NOT_SET_ANYWHERE",), config=consumer(group_id="${oc.env:NOT_SET_ANYWHERE}")
    ),
    "unknown-runtime-key": Case(
        Exit.CONFIG,
        ("streaming.runtime.epoch_intervall_ms", "epoch_interval_ms"),
        config=streaming(runtime={"epoch_intervall_ms": 5}),
    ),
    "wrong-runtime-type": Case(
        Exit.CONFIG,
        ("streaming.runtime.epoch_interval_ms", "int"),
        config=streaming(runtime={"epoch_interval_ms": "soon"}),
    ),
    "runtime-out-of-range": Case(
        Exit.CONFIG,
        ("workers_per_process",),
        config=streaming(runtime={"workers_per_process": 0}),
    ),
    "restarts-out-of-range": Case(
        Exit.CONFIG,
        ("streaming.supervision.restarts", "must be at least 0"),
        config=streaming(supervision={"restarts": -1}),
    ),
    "unknown-supervision-key": Case(
        Exit.CONFIG,
        ("streaming.supervision.restart", "restarts"),
        config=streaming(supervision={"restart": 3}),
    ),
    "stall-timeout-below-an-epoch": Case(
        Exit.CONFIG,
        ("stall_timeout_ms is 500", "1000 ms", "3000"),
        config=streaming(supervision={"stall_timeout_ms": 500}),
    ),
    "cluster-of-one-missing": Case(
        Exit.CONFIG,
        ("streaming.runtime.process_id", "must be 0 to 1", "there are 2 addresses"),
        config=streaming(runtime={"process_id": 2, "addresses": ["a:1", "b:1"]}),
    ),
    "tracing-protocol": Case(
        Exit.CONFIG,
        ("observability.otel.protocol", "http"),
        config=lambda config: config.update(observability={"otel": {"protocol": "grpc"}}),
    ),
    "unused-dependency": Case(Exit.COMPILATION, ("With", "'prices'"), flow="flows:scoped"),
    "unregistered-sink": Case(
        Exit.CONFIG,
        ("streaming.sinks.store", "'liness'"),
        config=streaming(sinks={"store": {"type": "liness", "password": SECRET}}),
    ),
    "unknown-sink-key": Case(
        Exit.CONFIG,
        ("streaming.sinks.store", "txet", "text"),
        config=streaming(sinks={"store": {"type": "lines", "txet": SECRET}}),
        arguments=("--sink", "flows:Lines"),
    ),
    "unknown-sink-class": Case(Exit.USAGE, ("--sink flows:Linse",), arguments=("--sink", "flows:Linse")),
    "wrong-payload": Case(Exit.COMPILATION, ("shout", "Text", "Number", "type-mismatch"), flow="flows:mistyped"),
}


PRICED = """
from flows import Number, source
from loom.streaming import IntoTopic, Process, RecordStep, StreamFlow


class Price(RecordStep[Number, Number]):
    def __init__(self, currency: str) -> None:
        if len(currency) != 3:
            raise ValueError("a currency has three letters")

    def execute(self, message):
        return message.payload


flow = StreamFlow("priced", source, Process(Price.from_config("pricing")), IntoTopic("out"))
mistyped = StreamFlow("priced", source, Process(Price.from_config("pricing", currancy="EUR")), IntoTopic("out"))
"""


def prepare(loom: Loom, case: Case) -> Path:
    (loom.directory / "priced.py").write_text(PRICED)
    (loom.directory / "broken.py").write_text("flow = (\n")
    (loom.directory / "failing.py").write_text("flow = 1 / 0\n")
    (loom.directory / "importing.py").write_text("import nowhere_to_be_found\n")
    return loom.write(case.config) if isinstance(case.config, str) else loom.config(case.config)


def assert_told(told: Told, code: Exit, tells: tuple[str, ...]) -> None:
    assert told.code == code, told.err
    assert told.out == ""
    assert len(told.messages) == 1, told.err
    for one in tells:
        assert one in told.messages[0]


#: as `run` they are told like everything that `check` finds
ALSO_RUN = (
    "unknown-flow",
    "unknown-key",
    "wrong-payload",
    "unknown-runtime-key",
    "tracing-protocol",
    "unregistered-sink",
)
RUNS = {**CASES, **{f"run-{name}": replace(CASES[name], command="run") for name in ALSO_RUN}}


@pytest.mark.parametrize("name", RUNS)
def test_a_mistake_is_told_in_one_message(loom: Loom, name: str) -> None:
    case = RUNS[name]
    told = loom(case.command, case.flow, "-c", prepare(loom, case), *case.arguments)
    assert_told(told, case.code, case.tells)
    assert told.err.startswith("loom: ")
    assert "Traceback" not in told.err


@pytest.mark.parametrize("name", ["unknown-flow", "failing-module", "secret-of-wrong-type", "wrong-payload"])
def test_with_debug_there_is_a_traceback_too(loom: Loom, name: str) -> None:
    case = CASES[name]
    told = loom("run", case.flow, "-c", prepare(loom, case), "--debug")
    assert_told(told, case.code, case.tells)
    assert "Traceback" in told.err


def test_a_config_that_is_not_there_is_named(loom: Loom) -> None:
    told = loom("run", "flows:numbers", "-c", "nowhere.yaml")
    assert_told(told, Exit.CONFIG, ("nowhere.yaml", "No such file"))


@pytest.mark.parametrize(
    "arguments",
    [("fly",), ("run", "flows:numbers"), ("check", "flows:numbers", "--config")],
    ids=" ".join,
)
def test_wrong_arguments_are_usage(loom: Loom, arguments: tuple[str, ...]) -> None:
    told = loom(*arguments)
    assert told.code == Exit.USAGE
    assert told.err + told.out
    assert "Traceback" not in told.err


# ---- what only shows when the flow is started; those that wait for a broker are started first and looked at last


@dataclass
class Waiting:
    """Commands under way, by name."""

    started: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module", autouse=True)
def waiting(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[Waiting]:
    from loom.streaming.kafka import EmbeddedBroker

    under_way = Waiting()
    with EmbeddedBroker() as empty:
        for name, bootstrap, arguments in (
            ("no-broker", "127.0.0.1:1", ()),
            ("no-broker-debug", "127.0.0.1:1", ("--debug",)),
            ("silent-broker", "192.0.2.1:9092", ()),
            ("no-topics", empty.bootstrap, ()),
        ):
            loom = Loom(tmp_path_factory.mktemp(name), fork_server)
            config = loom.config(bootstrap=bootstrap)
            process = loom.start("run", "flows:everything", "-c", config, *arguments)
            under_way.started[name] = (loom, process)
        yield under_way
        for _, process in under_way.started.values():
            process.kill()


def test_every_missing_topic_is_named_at_once(waiting: Waiting) -> None:
    loom, process = waiting.started["no-topics"]
    told = loom.end(process)
    assert_told(told, Exit.ENVIRONMENT, ("'numbers'", "'out'", "'errors'", "'refused'"))
    assert "Traceback" not in told.err


@pytest.mark.parametrize("name", ["no-broker", "silent-broker"])
def test_a_broker_that_does_not_answer_is_named(waiting: Waiting, name: str) -> None:
    loom, process = waiting.started[name]
    told = loom.end(process)
    address = "127.0.0.1:1" if name == "no-broker" else "192.0.2.1:9092"
    assert_told(told, Exit.ENVIRONMENT, (address, "within 8 s"))
    assert "Traceback" not in told.err


def test_with_debug_the_clients_own_lines_and_a_traceback_are_shown(waiting: Waiting) -> None:
    loom, process = waiting.started["no-broker-debug"]
    told = loom.end(process)
    assert told.code == Exit.ENVIRONMENT
    assert "Traceback" in told.err
