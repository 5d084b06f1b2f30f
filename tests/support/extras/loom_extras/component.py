"""What the node does."""

from __future__ import annotations

from itertools import count

from loom.streaming.components import (
    Ancestors,
    Code,
    CodeWriter,
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
    number = count(1).__next__

    def emit(code: CodeWriter) -> None:
        code.line(
            f"if {code.name('number', number)}() % {node.n}:",
            f"    {code.name('drops', build.counts.drops)}[{node.step_id!r}] += 1",
            f"    {code.done}",
        )

    return build.entry(build.emitted(node.path, emit, after), after.tombstone, above)


EVERY = NodeComponent((Every,), _compile, CompiledEvery, _build)
