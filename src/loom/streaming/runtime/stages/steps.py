"""User code that takes records one by one, as closures. Hot path: these run once per record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loom.streaming.compiler.model import StepKind
from loom.streaming.compiler.nodes.step import CompiledStep
from loom.streaming.message import Message, MessageMeta
from loom.streaming.runtime.stages.batches import build_batch, build_batch_expand
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import Inline, LoopWriter
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, NodeInput, Receive
from loom.streaming.runtime.stages.result_check import ResultParts, classify_result, several

__all__ = ["build_step"]

_MessageClass = Callable[[Any, Any], Message[Any]]


def build_step(build: StageBuilder, step: CompiledStep, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A step of any kind."""
    if after is None:
        raise ValueError(f"nothing stands behind {step.step_id}")
    return _BUILDERS[step.kind](build, step, after, above)


def _build_single(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A `@step` function, which is handed the payload, or a `RecordStep`, which is handed a message."""
    fail = build.fail(step.step_id, step.path, above)
    drops = build.counts.drops if step.may_drop else None
    parts = classify_result(step.returns, after, fail, build.view, drops, step.step_id, step.name)
    if step.kind is StepKind.RECORD:
        call = step.bound.instance.execute
        run = _record_closure(call, parts, fail, after.record, build.message)
        build.inline(step.path, _inline(call, parts, fail, build.message))
    else:
        call = step.bound.instance
        run = _function_closure(call, parts, fail, after.record)
        build.inline(step.path, _inline(call, parts, fail, None))
    return build.entry(run, run if step.takes_tombstones else after.tombstone, above)


def _function_closure(call: Callable[[Any], Any], parts: ResultParts, fail: Fail, straight: Receive) -> Receive:
    plain, odd = parts

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        try:
            result = call(payload)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if type(result) in plain:
            straight(result, origin, meta)
        else:
            odd(result, payload, origin, meta)

    return run


def _record_closure(
    call: Callable[[Any], Any], parts: ResultParts, fail: Fail, straight: Receive, lazy_message: _MessageClass
) -> Receive:
    plain, odd = parts

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
        try:
            result = call(message)
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        if type(result) in plain:
            straight(result, origin, meta)
        else:
            odd(result, payload, origin, meta)

    return run


def _inline(call: Callable[[Any], Any], parts: ResultParts, fail: Fail, lazy_message: _MessageClass | None) -> Inline:
    """The same as code for the loop."""

    def write(code: LoopWriter) -> None:
        given, result = code.payload, code.variable()
        argument = given if lazy_message is None else code.message(lazy_message)
        if len(parts.plain) == 1:
            (only,) = parts.plain
            is_odd = f"is not {code.name('plain', only)}"
        else:
            is_odd = f"not in {code.name('plain', parts.plain)}"
        if code.classes and code.classes <= parts.plain:
            # A step that only looks gives back what it was given, whose class is known.
            is_odd = f"{result} is not {given} and type({result}) {is_odd}"
        else:
            is_odd = f"type({result}) {is_odd}"
        code.line(
            "try:",
            f"    {result} = {code.name('call', call)}({argument})",
            "except BaseException as error:",
            f"    {code.name('fail', fail)}(error, {given}, origin, None)",
            "    continue",
            f"if {is_odd}:",
            f"    {code.name('odd', parts.odd)}({result}, {given}, origin, None)",
            "    continue",
        )
        code.payload, code.classes = result, parts.plain

    return write


def _build_expand(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """An `ExpandStep`: its results go on one by one."""
    execute, straight, lazy_message = step.bound.instance.execute, after.record, build.message
    name = step.name
    cell = build.cell(step.path)
    fail = build.fail(step.step_id, step.path, above)
    drops = build.counts.drops if step.may_drop else None
    one_of_many = build.fail(step.step_id, step.path, above.below(cell))
    plain, odd = classify_result(step.returns, after, one_of_many, build.view, drops, step.step_id, step.name)

    def run(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        message = lazy_message(payload, origin) if meta is None else Message(payload, meta)
        try:
            # Taken whole inside the boundary: an expansion that raises part-way emits nothing.
            results = list(several(execute(message), name))
        except BaseException as error:
            fail(error, payload, origin, meta)
            return
        for index, result in enumerate(results):
            cell.at = index
            if type(result) in plain:
                straight(result, origin, meta)
            else:
                odd(result, payload, origin, meta)

    def pass_by(payload: Any, origin: Any, meta: MessageMeta | None) -> None:
        cell.at = NO_CHILD
        after.tombstone(payload, origin, meta)

    return build.entry(run, run if step.takes_tombstones else pass_by, above)


_BUILDERS: dict[StepKind, Callable[[StageBuilder, CompiledStep, NodeInput, Ancestors], NodeInput]] = {
    StepKind.FUNCTION: _build_single,
    StepKind.RECORD: _build_single,
    StepKind.EXPAND: _build_expand,
    StepKind.BATCH: build_batch,
    StepKind.BATCH_EXPAND: build_batch_expand,
}
