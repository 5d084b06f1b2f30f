"""What tells a process from others of its flow: the name it was given, else host and process id."""

from __future__ import annotations

import os
import socket

import pytest

from loom.core.config import ConfigContext
from loom.streaming.runtime.instance import instance_name


def test_the_environment_wins_over_the_config_and_that_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOM_GROUP_INSTANCE_ID", raising=False)
    named = ConfigContext.from_dict({"kafka": {"consumer": {"group_instance_id": "green-1"}}})
    machine = f"{socket.gethostname()}-{os.getpid()}"
    assert [instance_name(config) for config in (None, ConfigContext.from_dict({}), named)] == [
        machine,
        machine,
        "green-1",
    ]
    monkeypatch.setenv("LOOM_GROUP_INSTANCE_ID", "blue-3")
    assert instance_name(named) == "blue-3"
