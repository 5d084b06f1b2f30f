"""What a member of a group cannot be combined with is refused before anything starts, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, compile_flow, step
from loom.streaming.bytewax import build_dataflow_with_shutdown
from loom.streaming.kafka.group_settings import INSTANCE_ID
from loom.streaming.runtime.prepare import prepare
from tests.support.running import config_for


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("sharing", FromTopic("numbers", Number), Process(same), IntoTopic("out"), IntoTopic("errors"))


def config(runtime: dict[str, Any] | None = None, membership: str = "group", **sections: Any) -> dict[str, Any]:
    made = config_for(consumer={"delivery": "at_least_once", "membership": membership}, runtime=runtime)
    made["streaming"].update(sections)
    return made


def prepared(found: dict[str, Any]) -> object:
    return prepare(FLOW, ConfigContext.from_dict(found), None)


def test_a_plain_member_is_ready_to_run() -> None:
    assert prepared(config())


def test_a_recovery_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"streaming\.runtime\.recovery: .*another process may have them next time"):
        prepared(config({"recovery": {"db_dir": str(tmp_path)}}))


def test_a_process_of_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"streaming\.runtime\.process_id: .*belong to a fixed assignment"):
        prepared(config({"process_id": 0, "addresses": ["a:1", "b:1"]}))


def test_dead_letters_of_records_that_kill_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_poison: .*goes to another"):
        prepared(config(supervision={"restarts": 3, "on_poison": "dead_letter"}))


def test_a_name_in_the_environment_without_a_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSTANCE_ID, "pod-0")
    with pytest.raises(ConfigError, match=rf"{INSTANCE_ID}: .*membership is fixed"):
        prepared(config(membership="fixed"))


class Tracker:
    def confirm(self, positions: Any) -> None:
        raise AssertionError("nothing is run")


@pytest.mark.bytewax
def test_a_tracker_of_the_callers_is_refused() -> None:
    plan = compile_flow(FLOW, config=config())
    with pytest.raises(ValueError, match="next owner of a partition begins at the group's offset"):
        build_dataflow_with_shutdown(plan, commit_tracker=Tracker())
