"""Runs one repetition of one cell and says what came out."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from pathlib import Path

from msgspec.structs import replace

from tests.kafka.crash.faults import Cell
from tests.kafka.crash.results import Result, blank
from tests.kafka.crash.scene import Overdue, Scene
from tests.kafka.crash.stands import Impossible, stand_for
from tests.kafka.crash.strikes import strike
from tests.support.broker import Broker

#: seconds of load after the fault
_AFTERWARDS = 1.0


def run_cell(cell: Cell, shared: Broker, directory: Path, seed: int | None = None) -> Result:
    """Start the flow under load, strike, see it through to the end of its input, stop it, and compare.

    What does not happen within its bound is part of the result; an error of the harness is raised.
    """
    began = time.monotonic()
    seed = random.SystemRandom().randrange(1 << 31) if seed is None else seed
    empty = blank(cell, seed)
    try:
        with (
            stand_for(cell.fault, shared, directory) as stand,
            Scene(cell, stand, directory, seed) as scene,
            scene.arrivals if cell.fault.several else nullcontext(),
        ):
            overdue, ended, stall = None, 0, None
            scene.load.start()
            try:
                strike(scene)
                scene.load.run_on(_AFTERWARDS)
                written = scene.finish_load()
                scene.see_through()
                ended, stall = scene.members_ended(), scene.longest_stall()
                scene.stop()
            except Overdue as problem:
                overdue = str(problem)
                written = scene.finish_load()
            found = seen_in(scene, empty, written, began)
            if cell.fault.several:
                found = replace(found, members_ended=ended, longest_stall=stall)
            if stand.shared:
                scene.forget()
    except Impossible as reason:
        return replace(empty, impossible=str(reason))
    return replace(found, overdue=overdue)


def seen_in(scene: Scene, result: Result, written: int, began: float) -> Result:
    """A result with what a reader finds of so many records, and how the scene went; `began` in monotonic seconds."""
    twice = scene.twice(written)
    verdict = scene.verdict(written, twice)
    return replace(
        result,
        records=written,
        lost=len(verdict.lost),
        duplicated=verdict.duplicates,
        repeated=tuple(f"{at.topic}[{at.partition}]@{offset}: {number}" for at, offset, number in verdict.repeated),
        twice_in_source=sum(twice.values()) - len(twice),
        out_of_order=sum(verdict.disorder.values()),
        invented=len(verdict.invented),
        seconds_to_read=scene.seconds_until("polled"),
        seconds_to_resume=scene.seconds_until("durable"),
        seconds=round(time.monotonic() - began, 1),
        exit_codes=tuple(scene.exit_codes),
    )
