"""Sinks from the command line: given with --sink or offered by installed packages, and shown by `loom check`."""

from __future__ import annotations

from typing import Any

import pytest

from loom.cli.exit_codes import Exit
from loom.streaming.kafka import EmbeddedBroker
from tests.cli.conftest import SECRET, Loom, Told
from tests.support.flow_process import FlowProcess
from tests.support.running import produce
from tests.support.waiting import LONG_S

MORE = '''

class Aside(Lines):
    """For errors of two kinds."""

    sink_type = "aside"

    @classmethod
    def build_binding(cls, cfg, ctx):
        from loom.streaming import ErrorKind
        from loom.streaming.bytewax import RuntimeSinkBinding

        return RuntimeSinkBinding("errors", cls(), (ErrorKind.TASK, ErrorKind.WIRE))


class Copies(Lines):
    sink_type = "copies"

    @classmethod
    def build_binding(cls, cfg, ctx):
        from loom.streaming.bytewax import RuntimeSinkBinding

        return RuntimeSinkBinding("audit", cls())
'''


@pytest.fixture
def loom(loom: Loom) -> Loom:
    with (loom.directory / "flows.py").open("a") as module:
        module.write(MORE)
    return loom


def sinks(**sections: Any) -> Any:
    return lambda config: config["streaming"].update(sinks=sections)


def offer(loom: Loom, package: str, *lines: str) -> None:
    """Install a package that offers sinks, as far as anybody can tell."""
    info = loom.directory / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[loom.streaming.sinks]", *lines, ""]))


def checked(loom: Loom, *arguments: str, **sections: Any) -> Told:
    return loom("check", "flows:numbers", "-c", loom.config(sinks(**sections)), *arguments)


LINES = {"type": "lines", "text": SECRET}


def test_check_names_the_sinks_of_the_config_with_purpose_and_kinds_and_opens_none(loom: Loom) -> None:
    told = checked(
        loom,
        *("--sink", "flows:Lines", "--sink", "flows:Aside", "--sink", "flows:Copies"),
        store={"type": "lines", "text": str(loom.directory / "nowhere" / "lines")},
        failures={"type": "aside", "text": SECRET},
        log={"type": "copies", "text": SECRET},
    )
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[-3:] == [
        "  sink    store: the flow's output -> Lines",
        "  sink    failures: errors (wire, task) -> Aside",
        "  sink    log: a copy of every output message -> Copies",
    ]
    assert "no route for routing, business errors" in told.out


def test_check_refuses_what_a_run_would_refuse(loom: Loom) -> None:
    told = checked(
        loom, "--sink", "flows:Aside", one={"type": "aside", "text": "a"}, two={"type": "aside", "text": "b"}
    )
    assert told.code == Exit.CONFIG
    (message,) = told.messages
    assert "streaming.sinks.one and streaming.sinks.two both want the wire errors" in message

    def exactly_once(config: dict[str, Any]) -> None:
        sinks(log={"type": "copies", "text": "a"})(config)
        config["kafka"]["consumer"]["delivery"] = "exactly_once"

    told = loom("check", "flows:numbers", "-c", loom.config(exactly_once), "--sink", "flows:Copies")
    assert told.code == Exit.CONFIG
    assert "delivery-unkept" in told.err


def test_an_installed_package_may_offer_a_sink(loom: Loom) -> None:
    offer(loom, "shop-sinks", "lines = flows:Lines")
    told = checked(loom, store=LINES)
    assert (told.code, told.err) == (0, "")
    assert "store: the flow's output -> Lines" in told.out


def test_a_sink_that_is_offered_can_be_run(loom: Loom, broker: EmbeddedBroker) -> None:
    broker.create_topic("numbers")
    produce(broker.bootstrap, "numbers", b'{"n":7}')
    offer(loom, "shop-sinks", "lines = flows:Lines")
    lines = loom.directory / "lines.txt"
    config = loom.config(sinks(store={"type": "lines", "text": str(lines)}), bootstrap=broker.bootstrap)
    with FlowProcess("flows:numbers", config=config, directory=loom.directory, server=loom.server) as flow:
        flow.start()
        flow.await_positions(broker.bootstrap, "readers", "numbers", 1)
        flow.sigterm()
        assert flow.wait(LONG_S) == Exit.DONE, flow.output()
    assert lines.read_text() == "7\n"


def test_a_class_given_on_the_command_line_wins_over_one_that_is_offered(loom: Loom) -> None:
    with (loom.directory / "flows.py").open("a") as module:
        module.write("\n\nclass OtherLines(Lines):\n    pass\n")
    offer(loom, "shop-sinks", "lines = flows:Lines")
    assert "-> OtherLines" in checked(loom, "--sink", "flows:OtherLines", store=LINES).out


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nowhere.at_all:Sink", "ModuleNotFoundError: No module named 'nowhere'"),
        ("flows:Nothing", "AttributeError"),
        ("broken:Sink", "ZeroDivisionError: division by zero"),
        ("flows:Number", "is no RegisteredSink: it lacks sink_type, config_type, build_binding"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_broken_entry_point_is_one_message_that_names_it(loom: Loom, command: str, value: str, said: str) -> None:
    (loom.directory / "broken.py").write_text("1 / 0\n")
    offer(loom, "shop-sinks", f"lines = {value}")
    told = loom(command, "flows:numbers", "-c", loom.config(sinks(store=LINES)))
    assert told.code == Exit.USAGE
    assert f"the entry point lines = {value} of the package shop-sinks (loom.streaming.sinks)" in told.messages[0]
    assert said in told.messages[0]
    assert "Traceback" not in told.err


def test_a_broken_entry_point_does_no_harm_to_a_config_without_sinks(loom: Loom) -> None:
    offer(loom, "shop-sinks", "lines = nowhere:Lines")
    assert loom("check", "flows:numbers", "-c", loom.config()).code == Exit.DONE


def test_two_packages_that_offer_one_type_are_both_named(loom: Loom) -> None:
    offer(loom, "shop-sinks", "lines = flows:Lines")
    offer(loom, "other-sinks", "rows = flows:Lines")
    told = checked(loom, store=LINES)
    assert told.code == Exit.USAGE
    for package in ("shop-sinks", "other-sinks", "'lines'"):
        assert package in told.messages[0]


@pytest.mark.parametrize("name", ["flows:Number", "flows:numbers", "flows:positive"])
def test_what_is_given_and_is_no_registered_sink_is_told(loom: Loom, name: str) -> None:
    told = checked(loom, "--sink", name, store=LINES)
    assert told.code == Exit.USAGE
    (message,) = told.messages
    assert message.startswith(f"--sink {name}: ")
    assert "is no RegisteredSink" in message
