"""One record becomes many: what an `ExpandStep` and an `Explode` have in common. Hot path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from loom.streaming.compiler.model import NodePath, PayloadTypes, StepId
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter, build_function
from loom.streaming.runtime.stages.node_input import NO_CHILD, Ancestors, NodeInput
from loom.streaming.runtime.stages.result_check import classify_result, several
from loom.streaming.runtime.stages.retrying import RetryQueue

__all__ = ["build_expansion"]


def build_expansion(
    build: StageBuilder,
    path: NodePath,
    step_id: StepId,
    expand: Callable[[Any], Iterable[Any]],
    returns: PayloadTypes,
    after: NodeInput,
    above: Ancestors,
    *,
    name: str,
    takes_messages: bool,
    takes_tombstones: bool,
    drops: Counter[str] | None = None,
    queue: RetryQueue | None = None,
) -> NodeInput:
    """A node that makes any number of results of a record, which continue one by one.

    Args:
        build: the stage that the node is built into.
        path: the place of the node.
        step_id: its id.
        expand: makes the results.
        returns: the payload types that it declares.
        after: the next node.
        above: the expansions in front of it.
        name: what errors call it.
        takes_messages: whether `expand` receives the message, otherwise the payload.
        takes_tombstones: whether it receives tombstones; otherwise they bypass it.
        drops: counts results of `None`, where those are declared.
        queue: keeps a record when `expand` raises, where there is a retry policy.
    """
    cell = build.cell(path)
    fail = build.fail(step_id, path, above) if queue is None else queue.failed
    behind = above if queue is None else above.behind(path)
    one_of_many = build.fail(step_id, path, behind.below(cell))
    plain, unusual = classify_result(returns, after, one_of_many, build.view, drops, step_id, name)

    def emit(code: CodeWriter) -> None:
        at = f"{code.name('cell', cell)}.at"
        if code.tombstones and not takes_tombstones:
            code.line(f"{at} = {NO_CHILD}")
            code.leave(after.tombstone)
            return
        given, results, result = code.payload, code.variable(), code.variable()
        argument = code.message(build.message) if takes_messages else given
        found = f"{code.name('several', several)}({code.name('expand', expand)}({argument}), {name!r})"
        # Taken whole inside the boundary: an expansion that raises part-way emits nothing.
        code.attempt(fail, f"{results} = list({found})")
        code.others()
        code.line(
            f"for {at}, {result} in enumerate({results}):",
            f"    if type({result}) in {code.name('plain', plain)}:",
            f"        {code.name('take', after.record)}({result}, origin, {code.meta})",
            "    else:",
            f"        {code.name('unusual', unusual)}({result}, {given}, origin, {code.meta})",
        )
        code.end()

    entry = build.entry(build.emitted(path, emit, None), build_function(emit, None, tombstones=True), above)
    return entry if queue is None else queue.calls(entry)
