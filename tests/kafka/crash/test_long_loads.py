"""What takes minutes: loads under random kills, twenty stops, restarts measured, memory behind a slow sink.

Part of `make crash`; each is done once, and appended to the matrix's results. `LOOM_CRASH_MINUTES` shortens the loads.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import pytest
from msgspec.structs import replace

from tests.kafka.crash.cell import seen_in
from tests.kafka.crash.faults import Act, Cell, Delivery, Fault
from tests.kafka.crash.results import append, blank, broken_promises, present
from tests.kafka.crash.scene import Scene
from tests.kafka.crash.stands import Stand
from tests.support.apache_kafka import ApacheKafka, Behind, free_port
from tests.support.broker import Broker
from tests.support.processes import resident_megabytes
from tests.support.proxy import Proxy

MINUTES = float(os.environ.get("LOOM_CRASH_MINUTES", "10"))
STOPS = 20
RESTARTS = 10
#: seconds within which a flow ends when it is asked to, and reads again when it is started again, on a machine that has
#: time for it: where more wants to run than there are cores, starting Python takes its share of that alone
WITHIN = 5.0
#: MB that a flow may hold, and by how much it may still grow once it is warm
RESIDENT = 300.0
FLAT = 1.1

pytestmark = [pytest.mark.crash, pytest.mark.timeout(int(MINUTES * 60) + 900)]

PROMISING = pytest.mark.parametrize("delivery", [Delivery.AT_LEAST_ONCE, Delivery.EXACTLY_ONCE])


@pytest.mark.parametrize("workers", [1, 2])
@PROMISING
def test_a_load_survives_being_killed_every_few_seconds(
    kafka: Broker, tmp_path: Path, delivery: Delivery, workers: int
) -> None:
    def harm(scene: Scene) -> dict[str, float]:
        over = time.monotonic() + MINUTES * 60
        kills, seconds = 0, []
        while time.monotonic() < over:
            scene.start()
            time.sleep(min(scene.random.uniform(2, 15), max(0.0, over - time.monotonic())))
            assert scene.flow.alive, scene.flow.tail()
            if (read := _seconds_to_read(scene)) is not None:
                seconds.append(read)
            scene.flow.send(signal.SIGKILL)
            scene.flow.wait(10)
            kills += 1
        scene.start()
        return {"kills": kills} | _spread("seconds_to_read", seconds)

    name = f"SIGKILL every 2 to 15 s, {MINUTES:g} minutes of load"
    _once(name, delivery, workers, kafka, tmp_path, harm, rate=2_000, epoch_ms=1_000)


@pytest.mark.parametrize("plain", [False, True], ids=["runner", "plain cli_main"])
@PROMISING
def test_twenty_stops_under_load_end_with_zero_in_time_and_nothing_is_repeated(
    kafka: Broker, tmp_path: Path, delivery: Delivery, plain: bool
) -> None:
    def harm(scene: Scene) -> dict[str, float]:
        seconds = []
        for _ in range(STOPS):
            scene.start()
            scene.until("polled")
            scene.some_time(0.5, 2.5)
            asked = time.monotonic()
            scene.flow.sigterm()
            assert scene.end_of(scene.flow) == 0, scene.flow.tail()
            seconds.append(time.monotonic() - asked)
        scene.start()
        return {"stops": STOPS} | _spread("seconds_to_stop", seconds)

    program = [str(Path(__file__).with_name("plain_engine.py"))] if plain else None
    name = f"SIGTERM {STOPS} times, epochs of 1 s, {'under a plain cli_main' if plain else 'with the runner'}"
    found = _once(name, delivery, 1, kafka, tmp_path, harm, graceful=True, epoch_ms=1_000, program=program)
    assert found["seconds_to_stop_most"] < WITHIN * _crowd(found)


@PROMISING
def test_after_a_kill_the_flow_reads_again_in_time(kafka: Broker, tmp_path: Path, delivery: Delivery) -> None:
    def harm(scene: Scene) -> dict[str, float]:
        seconds = []
        for _ in range(RESTARTS + 1):
            scene.start()
            scene.until("durable")
            seconds.append(_seconds_to_read(scene) or 0.0)
            scene.some_time(0.1, 1.0)
            scene.flow.send(signal.SIGKILL)
            scene.flow.wait(10)
        scene.start()
        return _spread("seconds_to_read", seconds[1:])

    name = f"SIGKILL {RESTARTS} times, each restart measured"
    found = _once(name, delivery, 1, kafka, tmp_path, harm, epoch_ms=1_000)
    assert found["seconds_to_read_most"] < WITHIN * _crowd(found)


@pytest.mark.parametrize(
    ("what", "minutes", "share", "hot"),
    [
        ("sink throttled to a tenth", 5.0, 0.1, False),
        ("sink throttled to a tenth, all records in one partition", 3.0, 0.1, True),
        ("broker of the outputs silent", 3.0, 0.0, False),
    ],
)
def test_memory_stays_small_and_flat_behind_a_sink_that_takes_too_little(
    kafka: Broker, tmp_path: Path, what: str, minutes: float, share: float, hot: bool
) -> None:
    minutes = min(MINUTES, minutes)
    name = f"{what}, {minutes:g} minutes"
    if present(name, Delivery.AT_LEAST_ONCE, 1):
        pytest.skip("has a result already")
    rate, bytes_per_record = 10_000, 55
    behind = Behind(port=free_port(), proxy=free_port())
    throttle = rate * share * bytes_per_record or None
    with (
        Proxy(behind.proxy, behind.port, throttle=throttle) as proxy,
        ApacheKafka(tmp_path / "kafka", behind=behind) as own,
    ):
        stand = Stand(own, own.bootstrap, out_bootstrap=f"127.0.0.1:{behind.proxy}", proxy=proxy)
        cell = _cell(name, Delivery.AT_LEAST_ONCE, 1, producer_extra={"compression.type": "none"})
        with Scene(cell, stand, tmp_path, 0, rate=rate, epoch_ms=1_000, hot=hot) as scene:
            scene.load.start()
            scene.start()
            scene.until("durable")
            if not share:
                proxy.silence()
            began, samples = time.monotonic(), []
            while time.monotonic() - began < minutes * 60:
                assert scene.flow.alive, scene.flow.tail()
                samples.append(resident_megabytes(scene.flow.pid))
                time.sleep(1)
            written_out = scene.results()
            scene.flow.kill_all()
            written = scene.load.finish()
    third = len(samples) // 3
    warm, late = max(samples[third : 2 * third]), max(samples[2 * third :])
    figures = {
        "megabytes_most": round(max(samples), 1),
        "megabytes_most_of_the_middle_third": round(warm, 1),
        "megabytes_most_of_the_last_third": round(late, 1),
        "share_written": round(written_out / written, 3),
    }
    append(replace(blank(cell, 0), records=written, seconds=round(time.monotonic() - began, 1), figures=figures))
    assert figures["share_written"] < 2 * share + 0.02, figures
    assert max(samples) < RESIDENT, figures
    if minutes >= 3:  # before, it is still warming up
        assert late < warm * FLAT, figures


def _once(
    name: str,
    delivery: Delivery,
    workers: int,
    broker: Broker,
    directory: Path,
    harm: Callable[[Scene], dict[str, float]],
    *,
    graceful: bool = False,
    **scene_options: object,
) -> Mapping[str, float]:
    """Do harm to a flow under load, see it through, and keep what came out; returns the figures."""
    if present(name, delivery, workers):
        pytest.skip("has a result already")
    cell, seed, began = _cell(name, delivery, workers), random.SystemRandom().randrange(1 << 31), time.monotonic()
    stand = Stand(broker, broker.bootstrap, shared=True)
    with Scene(cell, stand, directory, seed, **scene_options) as scene:  # type: ignore[arg-type]
        scene.load.start()
        figures = harm(scene) | {"load_average": round(os.getloadavg()[0], 1)}
        written = scene.load.finish()
        scene.see_through()
        scene.stop()
        result = replace(seen_in(scene, blank(cell, seed), written, began), figures=figures)
        scene.forget()
    append(result)
    broken = broken_promises(result, graceful=graceful)
    assert not broken, f"{broken}: {result}"
    return figures


def _cell(name: str, delivery: Delivery, workers: int, *, producer_extra: Mapping[str, str] | None = None) -> Cell:
    return Cell(Fault(name, Act.SIGNAL, producer_extra=producer_extra or {}), delivery, workers, 0)


def _crowd(figures: Mapping[str, float]) -> float:
    """How many want to run for each core there is, one at least."""
    return max(1.0, figures["load_average"] / (os.cpu_count() or 1))


def _seconds_to_read(scene: Scene) -> float | None:
    """From the last start to its first batch; `None` when it had none yet."""
    found = scene.trace.first("polled", process=scene.flow.pid)
    return None if found is None else found - scene.since


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    return {f"{name}_median": round(median(seconds), 2), f"{name}_most": round(max(seconds), 2)}
