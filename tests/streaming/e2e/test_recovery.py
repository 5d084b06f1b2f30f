"""A recovery directory: made when it is missing, refused when it cannot be written, and a place to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step
from loom.streaming.bytewax import BytewaxRecoverySettings, BytewaxRuntimeConfig, RecoveryDirectoryError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_until

pytestmark = pytest.mark.bytewax


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("resuming", FromTopic("numbers", Number), Process(same), IntoTopic("out"))


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 2) for n in values))


def written(bootstrap: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])


def config(bootstrap: str, directory: Path, **consumer: Any) -> dict[str, Any]:
    return config_for(
        bootstrap,
        consumer={"delivery": "at_least_once", **consumer},
        runtime={"recovery": {"db_dir": str(directory), "backup_interval_ms": 0}},
    )


def test_a_directory_that_is_missing_is_made_and_the_next_run_reads_on(bootstrap: str, tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    write(bootstrap, *range(6))
    run_all(FLOW, config(bootstrap, directory), 6)
    assert list(directory.glob("*.sqlite3"))
    write(bootstrap, 6, 7)
    run_all(FLOW, config(bootstrap, directory), 2)
    assert written(bootstrap) == list(range(8))


def test_a_group_that_has_lost_its_position_resumes_from_the_directory(bootstrap: str, tmp_path: Path) -> None:
    write(bootstrap, *range(6))
    run_all(FLOW, config(bootstrap, tmp_path), 6)
    write(bootstrap, 6, 7)
    # Another group has no position: without the directory it would begin at the beginning.
    run_all(FLOW, config(bootstrap, tmp_path, group_id="others"), 2)
    assert written(bootstrap) == list(range(8))
    assert positions(bootstrap, "numbers", "others") == {0: 4, 1: 4, 2: 0, 3: 0}


def test_the_groups_position_wins_over_the_directorys(bootstrap: str, tmp_path: Path) -> None:
    write(bootstrap, *range(6))
    run_all(FLOW, config(bootstrap, tmp_path), 6)
    write(bootstrap, 6, 7)
    run_all(FLOW, config_for(bootstrap, consumer={"delivery": "at_least_once"}), 2)  # without the directory
    write(bootstrap, 8, 9)
    run_all(FLOW, config(bootstrap, tmp_path), 2)
    assert written(bootstrap) == list(range(10))


def test_a_failed_run_resumes_where_it_was_durable(bootstrap: str, tmp_path: Path) -> None:
    @step(name="same")
    def fails(number: Number) -> Number:
        if number.n == 6:
            raise ValueError("six")
        return number

    failing = StreamFlow("resuming", FromTopic("numbers", Number), Process(fails), IntoTopic("out"))
    write(bootstrap, *range(4))
    runner = StreamingRunner.from_dict(failing, config(bootstrap, tmp_path, batch_size=1))

    def done(_: Any) -> bool:
        if sum(positions(bootstrap, "numbers").values()) == 4:
            write(bootstrap, 4, 5, 6, 7)
        return False

    with pytest.raises(Exception, match="six"):
        run_until(runner, done)
    run_until(
        StreamingRunner.from_dict(FLOW, config(bootstrap, tmp_path)),
        lambda _: sum(positions(bootstrap, "numbers").values()) >= 8,
    )
    assert set(written(bootstrap)) == set(range(8))


def test_a_directory_of_another_flow_is_refused_before_anything_is_read(bootstrap: str, tmp_path: Path) -> None:
    run_all(FLOW, config(bootstrap, tmp_path), 0)
    other = StreamFlow("other", FromTopic("numbers", Number), Process(same), IntoTopic("out"))
    write(bootstrap, 1)
    with pytest.raises(RecoveryDirectoryError, match="holds the state of the flow 'resuming', and this is 'other'"):
        StreamingRunner.from_dict(other, config(bootstrap, tmp_path)).run()
    assert written(bootstrap) == []


@pytest.mark.parametrize("where", ["file", "below-a-file"])
def test_a_directory_that_cannot_be_written_is_named(bootstrap: str, tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("a file")
    directory = tmp_path / "taken" if where == "file" else tmp_path / "taken" / "state"
    with pytest.raises(RecoveryDirectoryError) as refused:
        StreamingRunner.from_dict(FLOW, config(bootstrap, directory)).run()
    assert str(directory) in str(refused.value)
    assert "streaming.runtime.recovery.db_dir" in str(refused.value)


def test_a_runtime_given_to_run_rules_over_the_loaded_one(bootstrap: str, tmp_path: Path) -> None:
    write(bootstrap, 0, 1)
    runtime = BytewaxRuntimeConfig(epoch_interval_ms=20, recovery=BytewaxRecoverySettings(str(tmp_path / "given")))
    loaded = StreamingRunner.from_dict(FLOW, config(bootstrap, tmp_path / "loaded"))
    run_until(loaded, all_done(2), runtime=runtime)
    assert (tmp_path / "given").is_dir()
    assert not (tmp_path / "loaded").exists()
