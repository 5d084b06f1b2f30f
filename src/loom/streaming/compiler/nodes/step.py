"""Steps of user code: bound, their signatures read, checked against what arrives."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from loom.streaming.compiler.bindings import bind_step
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import BoundStep, CompiledNode, NodePath, StepKind
from loom.streaming.compiler.signatures import UnreadableSignature, kind_of, read_signature
from loom.streaming.compiler.walk import Compiled, ProcessCompiler, StreamType
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.step import Step, StepFunction

__all__ = ["CompiledStep", "compile_step"]

_ONE_BY_ONE = (StreamShape.RECORD, StreamShape.MANY)
_TAKES: dict[StepKind, tuple[StreamShape, ...]] = {
    StepKind.FUNCTION: _ONE_BY_ONE,
    StepKind.RECORD: _ONE_BY_ONE,
    StepKind.EXPAND: _ONE_BY_ONE,
    StepKind.BATCH: (StreamShape.RECORD, StreamShape.MANY, StreamShape.BATCH),
    StepKind.BATCH_EXPAND: (StreamShape.BATCH,),
}

_BASES: dict[StepKind, str] = {
    StepKind.RECORD: "RecordStep",
    StepKind.EXPAND: "ExpandStep",
    StepKind.BATCH: "BatchStep",
    StepKind.BATCH_EXPAND: "BatchExpandStep",
}


class CompiledStep(CompiledNode, kw_only=True):
    """One step of user code."""

    name: str
    kind: StepKind
    bound: BoundStep
    #: `None` was declared as a result: it drops the record
    may_drop: bool
    takes_tombstones: bool

    @property
    def multiplies(self) -> bool:
        return self.kind in (StepKind.EXPAND, StepKind.BATCH_EXPAND)

    @property
    def gathers(self) -> bool:
        return self.kind is StepKind.BATCH and self.in_shape is not StreamShape.BATCH

    @property
    def summary(self) -> str:
        drops = " | None" if self.may_drop and self.returns.types else ""
        return f" ({self.kind.value}): {self.accepts} -> {self.returns}{drops}"


def compile_step(walk: ProcessCompiler, node: Any, path: NodePath, flowing: StreamType) -> Compiled:
    """A step class, an instance, a `@step` function or a binding."""
    issues = walk.issues
    bound = bind_step(node, walk.config, issues, path)
    if bound is None:
        return None
    if isinstance(node, StepFunction):
        name, kind, callee, owner = node.step_name(), StepKind.FUNCTION, bound.instance, None
    else:
        step: Step[Any, Any] = bound.instance
        found_kind = kind_of(step)
        if found_kind is None or type(step).execute is _inherited(type(step)):  # type: ignore[attr-defined]
            issues.error(
                Code.STEP_SIGNATURE,
                f"{type(step).__qualname__} defines no execute()",
                path=path,
                remedy=f"let {type(step).__qualname__} inherit from RecordStep, ExpandStep or BatchStep and define "
                "execute(self, message)",
            )
            return None
        name, kind, callee, owner = step.step_name(), found_kind, step.execute, type(step)  # type: ignore[attr-defined]
    try:
        signature = read_signature(callee, kind, owner)
    except UnreadableSignature as unreadable:
        issues.error(Code.STEP_SIGNATURE, f"{name}: {unreadable}", path=path, remedy=unreadable.remedy)
        return None
    if signature.is_async:
        issues.error(
            Code.STEP_ASYNC,
            f"{name} is an async step",
            path=path,
            remedy=f"make {name} a plain function; async steps belong in WithAsync, which is not supported yet",
        )
    for dependency in signature.dependencies:
        issues.error(
            Code.STEP_DEPENDENCY,
            f"{name} asks for {dependency!r}, which nothing provides",
            path=path,
            remedy=f"give {dependency!r} to the constructor, or a default; dependencies come from With(…), which "
            "is not supported yet",
        )
    if signature.untyped:
        what = "-> …" if owner is None else f"-> … on execute(), or the types of the class, {_BASES[kind]}[…, …]"
        issues.warn(
            Code.STEP_UNTYPED,
            f"{name} does not say what it returns, so nothing checks that the nodes behind it take it",
            path=path,
            remedy=f"annotate its result: {what}",
        )
    walk.check_shape(name, path, flowing, _TAKES[kind])
    walk.check_types(name, path, flowing, signature.accepts)
    out_shape = _leaves(kind, flowing.shape)
    made = CompiledStep(
        path=path,
        step_id=walk.name(flowing.parent, name, path),
        name=name,
        kind=kind,
        bound=bound,
        in_shape=flowing.shape,
        out_shape=out_shape,
        accepts=signature.accepts,
        returns=signature.returns,
        may_drop=signature.may_drop,
        takes_tombstones=signature.takes_tombstones,
    )
    left = flowing.on(made)
    # Of a batch step the shape depends on what arrives.
    return made, replace(left, behind_refused=flowing.behind_refused and kind is StepKind.BATCH)


def _inherited(step_class: type) -> Any:
    """The `execute` of our own base class, which only says that it is missing."""
    bases = (base for base in step_class.__mro__ if base.__module__ == Step.__module__)
    return next((vars(base)["execute"] for base in bases if "execute" in vars(base)), None)


def _leaves(kind: StepKind, arrived: StreamShape) -> StreamShape:
    """What leaves a step: a batch stays one, an expansion makes many of each, and any other takes them one by one."""
    if kind is StepKind.EXPAND:
        return StreamShape.MANY
    if kind is StepKind.BATCH_EXPAND:
        return StreamShape.BATCH
    return arrived if kind is StepKind.BATCH and arrived is StreamShape.BATCH else StreamShape.RECORD
