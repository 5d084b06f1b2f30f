"""`loom check`: the plan as text, without a broker."""

from __future__ import annotations

import json

import pytest

from loom.cli.exit_codes import Exit
from tests.cli.conftest import Loom


def test_a_flow_is_explained(loom: Loom) -> None:
    told = loom("check", "flows:everything", "-c", loom.config())
    assert (told.code, told.err) == (0, "")
    for line in (
        "flow everything",
        "numbers as Number",
        "group readers",
        "everything.positive",
        "topic out",
        "refused",
    ):
        assert line in told.out


def test_warnings_are_part_of_the_explanation(loom: Loom) -> None:
    told = loom("check", "flows:numbers", "-c", loom.config(lambda config: config.update(pricing={"currency": "EUR"})))
    assert told.code == 0
    for warning in ("errors-unrouted", "config-unread", "'pricing'"):
        assert warning in told.out


def test_a_module_is_looked_for_where_the_command_is_run(loom: Loom) -> None:
    inner = loom.directory / "shop"
    inner.mkdir()
    (loom.directory / "flows.py").rename(inner / "flows.py")
    assert loom("check", "shop.flows:numbers", "-c", loom.config()).code == 0


def test_a_flow_may_be_an_attribute_of_an_object(loom: Loom) -> None:
    with (loom.directory / "flows.py").open("a") as module:
        module.write("\n\nclass shop:\n    flow = numbers\n")
    assert loom("check", "flows:shop.flow", "-c", loom.config()).code == 0


REPLAYING = """
from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorEnvelope, FromTopic, IntoTopic, Process, StreamFlow, step


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@step
def again(letter: ErrorEnvelope[Number]) -> Number | None:
    return letter.original_message.payload if letter.original_message else None


numbers = StreamFlow("numbers", FromTopic("in", Number), Process(same), IntoTopic("out"), IntoTopic("bad"))
replay = StreamFlow("replay", FromTopic("bad", ErrorEnvelope[Number]), Process(again), IntoTopic("in"), IntoTopic("lost"))
"""


def test_a_replay_that_goes_round_through_a_flow_of_the_same_module_is_told(loom: Loom) -> None:
    (loom.directory / "replaying.py").write_text(REPLAYING)
    told = loom("check", "replaying:replay", "--config", loom.config())
    assert told.code == 0, told.err
    assert "a circle: the flow 'numbers' reads 'in'" in told.out
    assert "a circle" not in loom("check", "replaying:numbers", "--config", loom.config()).out


def test_a_script_reads_the_plan_and_the_sinks(loom: Loom) -> None:
    told = loom("check", "flows:everything", "-c", loom.config(), "--json")
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    assert found["plan"]["flow"] == "everything"
    assert (found["sinks"], found["problems"]) == ([], [])


def test_a_script_reads_every_problem_of_a_flow_with_its_place_and_help(loom: Loom) -> None:
    told = loom("check", "flows:mistyped", "-c", loom.config(), "--json")
    assert told.code == Exit.COMPILATION
    (problem,) = json.loads(told.out)["problems"]
    assert (problem["code"], problem["where"], problem["path"]) == ("type-mismatch", "process", [0])
    assert (problem["expected"], problem["found"]) == ("Text", "Number")
    assert "put a step in front" in problem["help"]
    assert told.messages[0].startswith("flow 'mistyped' does not compile: 1 problem")


def test_a_script_reads_the_problems_of_a_config(loom: Loom) -> None:
    config = loom.config(lambda made: made["streaming"]["runtime"].update(epoch_interval_ms=0))
    told = loom("check", "flows:numbers", "-c", config, "--json")
    assert told.code == Exit.CONFIG
    (problem,) = json.loads(told.out)["problems"]
    assert (problem["code"], problem["key"]) == ("config-invalid", "streaming.runtime.epoch_interval_ms")


def test_a_shell_completes_commands_and_options(loom: Loom, monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(words: str, at: int) -> list[str]:
        for name, value in {"COMP_WORDS": words, "COMP_CWORD": str(at), "_LOOM_COMPLETE": "complete_bash"}.items():
            monkeypatch.setenv(name, value)
        return loom().out.split()

    assert completed("loom to", 1) == ["top", "topics"]
    assert {"list", "describe", "create", "tail", "produce"} <= set(completed("loom topics ", 2))
    assert completed("loom run --sour", 2) == ["--source"]
