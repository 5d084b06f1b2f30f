"""What the node does."""

from __future__ import annotations

from typing import Any

from loom.streaming.components import (
    Ancestors,
    Code,
    Compiled,
    CompiledNode,
    NodeComponent,
    NodeInput,
    NodePath,
    ProcessCompiler,
    StageBuilder,
    StreamShape,
    StreamType,
)
from loom_extras.nodes import Every


class CompiledEvery(CompiledNode, kw_only=True):
    n: int

    @property
    def summary(self) -> str:
        return f" {self.n}. record"


def _compile(walk: ProcessCompiler, node: Every, path: NodePath, flowing: StreamType) -> Compiled:
    walk.check_shape("Every", path, flowing, (StreamShape.RECORD, StreamShape.MANY))
    if node.n < 1:
        walk.issues.error(
            Code.STEP_ARGUMENTS, f"Every({node.n}) lets nothing through", path=path, remedy="write 1 or more"
        )
    made = CompiledEvery(
        path=path,
        step_id=walk.name(flowing.parent, node.name or "every", path),
        in_shape=flowing.shape,
        out_shape=flowing.shape,
        accepts=flowing.payloads,
        returns=flowing.payloads,
        n=node.n,
    )
    return made, flowing.on(made)


def _build(build: StageBuilder, node: CompiledEvery, after: NodeInput | None, above: Ancestors) -> NodeInput:
    assert after is not None
    record, drops, n, step_id = after.record, build.counts.drops, node.n, node.step_id
    seen = 0

    def run(payload: Any, origin: Any, meta: Any) -> None:
        nonlocal seen
        seen += 1
        if seen % n:
            drops[step_id] += 1
        else:
            record(payload, origin, meta)

    return build.entry(run, after.tombstone, above)


EVERY = NodeComponent((Every,), _compile, CompiledEvery, _build)
