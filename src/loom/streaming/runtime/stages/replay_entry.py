"""Records that enter a flow at a step, in place of the first one: those that name it in the header `x-loom-replay-step`.

Written by `loom dlq replay --into-step`. Hot path where the source sets `replay_steps`: each record's headers are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from loom.streaming.compiler.names import SOURCE, child_id
from loom.streaming.compiler.replay_steps import replay_entry
from loom.streaming.errors import ErrorKind
from loom.streaming.formats.registry import reading_of
from loom.streaming.headers import Headers
from loom.streaming.kafka.record_headers import REPLAY_STEP
from loom.streaming.message import MessageMeta
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.decode import Head
from loom.streaming.runtime.stages.failures import NOT_DECODED, Fail
from loom.streaming.runtime.stages.node_input import NO_CHILD, NOWHERE, NodeInput

__all__ = ["honour_replays"]


def honour_replays(build: StageBuilder, undecoded: Fail) -> Callable[[Head], Head]:
    """What puts the entries of a built stage in front of its head.

    A step of another flow is none of our business: the header passes through, as any other.
    """
    plan, view = build.plan, build.view
    source = child_id(plan.name, SOURCE)
    unknown = build.fail(source, (), NOWHERE, kind=ErrorKind.ROUTING)
    reading, hook = reading_of(plan.source.settings.format), plan.source.dec_hook
    ours = f"{plan.name}.".encode()

    @cache
    def entry_of(step: bytes) -> tuple[NodeInput, Callable[[bytes], Any]]:
        found = replay_entry(plan, step.decode("utf-8", "replace"))
        return build.entry_at(found.node.path), reading.format.decoder(found.payload, hook)

    def step_of(origin: Any) -> bytes | None:
        step = next((value for name, value in view.pairs_left(origin) if name == REPLAY_STEP), None)
        return step if step is not None and step.startswith(ours) else None

    def enter(step: bytes, origin: Any) -> None:
        try:
            into, decode = entry_of(step)
        except Exception as error:
            unknown(error, NOT_DECODED, origin, None)
            return
        try:
            payload = decode(view.value(origin) or b"")
        except BaseException as error:
            undecoded(error, NOT_DECODED, origin, None)
            return
        bypassed = [(cell, cell.at) for cell in build.child_indexes]
        for cell, _ in bypassed:
            cell.at = NO_CHILD
        into.record(payload, origin, _without_step(view.meta(origin)))
        for cell, at in bypassed:
            cell.at = at

    def in_front_of(head: Head) -> Head:
        def run(origins: Sequence[Any]) -> None:
            if not view.any_headers(origins):
                head(origins)
                return
            begun = 0
            for index, origin in enumerate(origins):
                step = step_of(origin)
                if step is not None:
                    head(origins[begun:index])
                    enter(step, origin)
                    begun = index + 1
            head(origins[begun:])

        return run

    return in_front_of


def _without_step(meta: MessageMeta) -> MessageMeta:
    """The header has been obeyed: it does not leave the flow."""
    return replace(meta, headers=Headers.of(meta.headers).replaced((REPLAY_STEP,), ()))
