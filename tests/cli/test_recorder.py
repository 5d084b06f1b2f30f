"""Where a run is, in memory that its supervisor reads when it is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loom.cli.supervisor.recorder import AtWork, Recorder, Recording, RunState
from loom.streaming.kafka import TopicPartition
from loom.streaming.record import TopicPartitionOffset
from loom.streaming.runtime.supervised import Isolation
from tests.support.die_with_parent import die_with_parent
from tests.support.waiting import LONG_S

A, B = TopicPartition("numbers", 0), TopicPartition("numbers.too", 12)


@pytest.fixture
def recording() -> Iterator[Recording]:
    made = Recording()
    yield made
    made.close()


def written_by(recording: Recording) -> Recorder:
    return Recorder(os.dup(recording.descriptor))


def test_what_a_run_writes_is_read(recording: Recording) -> None:
    run = written_by(recording)
    assert recording.state() == RunState()
    run.committed({A: 3})
    run.reads({A: 9, B: 1})
    assert recording.state() == RunState({"numbers[0]": 3}, {"numbers[0]": 9, "numbers.too[12]": 1})
    run.works_on(B, 0, alone=True)
    assert recording.state().at_work == AtWork("numbers.too[12]", 0, alone=True)
    run.works_on(A, 3, alone=False)
    assert recording.state().at_work == AtWork("numbers[0]", 3, alone=False)
    run.works_on_nothing()
    assert recording.state().at_work is None


def test_a_partition_beyond_those_that_there_is_room_for_is_left_out(recording: Recording) -> None:
    run = written_by(recording)
    partitions = [TopicPartition("many", number) for number in range(9_000)]
    for partition in partitions:
        run.reads({partition: 1})
    run.works_on(partitions[-1], 1, alone=True)
    state = recording.state()
    assert len(state.read) == 8192
    assert state.at_work is None


def test_what_is_asked_of_a_run_is_read_by_it() -> None:
    asked = Isolation({A: 7, B: 2}, {A: 5}, {TopicPartitionOffset("numbers", 0, 4): "killed by SIGABRT"})
    recording = Recording(asked)
    try:
        assert written_by(recording).isolation == asked
    finally:
        recording.close()


def test_nothing_is_asked_of_a_run_as_any_other(recording: Recording) -> None:
    assert written_by(recording).isolation is None


DYING = """
import os, signal, sys
from loom.cli.supervisor.recorder import Recorder
from loom.streaming.record import TopicPartition
run = Recorder(int(sys.argv[1]))
run.reads({TopicPartition("numbers", 0): 4})
run.works_on(TopicPartition("numbers", 0), 3, alone=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_outlives_the_run(recording: Recording) -> None:
    command = die_with_parent([sys.executable, "-c", DYING, str(recording.descriptor)])
    ended = subprocess.run(command, pass_fds=[recording.descriptor], check=False, timeout=LONG_S)
    assert ended.returncode == -signal.SIGKILL
    assert recording.state() == RunState({}, {"numbers[0]": 4}, AtWork("numbers[0]", 3, alone=True))
