"""Steps of user code: bound, their signatures read, checked against what arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from loom.streaming.compiler.bindings import bind_step
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.model import BoundStep, CompiledNode, NodePath, StepKind
from loom.streaming.compiler.signatures import UnreadableSignature, kind_of, read_signature
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, StreamType
from loom.streaming.components.async_steps import build_async
from loom.streaming.components.batch_steps import build_batch, build_batch_expand
from loom.streaming.components.retried import boundaries, retry_queue
from loom.streaming.nodes.retry import Retry
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.nodes.step import RetriedStep, Step, StepFunction
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter
from loom.streaming.runtime.stages.expansion import build_expansion
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput
from loom.streaming.runtime.stages.result_check import classify_result

__all__ = ["COMPONENTS", "CompiledStep"]


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
    """One step of the author's code.

    >>> step = compiled(Price, Drain()).nodes[0]
    >>> step.kind.value, step.name, step.may_drop
    ('record', 'price', False)
    """

    name: str
    kind: StepKind
    bound: BoundStep
    #: `None` was declared as a result: it drops the record
    may_drop: bool
    takes_tombstones: bool
    #: the dependencies that it is given by name
    takes: tuple[str, ...] = ()
    is_async: bool = False
    #: repeats calls that fail
    retry: Retry | None = None

    @property
    def takes_batches(self) -> bool:
        """Whether it is given several messages at once."""
        return self.kind in (StepKind.BATCH, StepKind.BATCH_EXPAND)

    @property
    def multiplies(self) -> bool:
        return self.kind in (StepKind.EXPAND, StepKind.BATCH_EXPAND)

    @property
    def gathers(self) -> bool:
        return self.waits or (self.kind is StepKind.BATCH and self.in_shape is not StreamShape.BATCH)

    @property
    def waits(self) -> bool:
        return self.retry is not None

    @property
    def overtakes(self) -> bool:
        return self.retry is not None

    @property
    def longest_wait_ms(self) -> float | None:
        return None if self.retry is None else self.retry.longest_ms

    @property
    def step_kind(self) -> StepKind:
        return self.kind

    @property
    def given(self) -> tuple[Any, ...]:
        # What a binding made belongs to its plan.
        return (self.bound.instance,) if self.bound.target is self.bound.instance else ()

    @property
    def summary(self) -> str:
        drops = " | None" if self.may_drop and self.returns.types else ""
        again = f", up to {self.retry.attempts} attempts" if self.retry is not None else ""
        return f" ({self.kind.value}): {self.accepts} -> {self.returns}{drops}{again}"


def _compile(walk: ProcessCompiler, node: Any, path: NodePath, flowing: StreamType) -> Compiled:
    """A step class, an instance, a `@step` function or a binding."""
    issues = walk.issues
    retry = node.retry if isinstance(node, RetriedStep | StepFunction) else None
    if isinstance(node, RetriedStep):
        node = node.step
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
    scope = walk.scope
    if signature.is_async and (scope is None or not scope.is_async):
        issues.error(
            Code.STEP_ASYNC,
            f"{name} is an async step",
            path=path,
            remedy=f"put it into WithAsync(process=Process({name})), or make {name} a plain function",
        )
    takes = () if scope is None else scope.take(signature.named, everything=signature.takes_any_name)
    for dependency in signature.dependencies:
        if dependency in takes:
            continue
        issues.error(
            Code.STEP_DEPENDENCY,
            f"{name} asks for {dependency!r}, which nothing provides",
            path=path,
            remedy=f"provide it: With({dependency}=…, process=Process({name})), or WithAsync; or give {dependency!r} to "
            "the constructor, or a default",
        )
    if signature.untyped:
        what = "-> …" if owner is None else f"-> … on execute(), or the types of the class, {_BASES[kind]}[…, …]"
        issues.warn(
            Code.STEP_UNTYPED,
            f"{name} does not say what it returns, so nothing checks that the next nodes accept it",
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
        takes=takes,
        is_async=signature.is_async,
        retry=retry,
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


def _build(build: StageBuilder, step: CompiledStep, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """A step of any kind."""
    if after is None:
        raise ValueError(f"nothing follows {step.step_id}")
    if step.is_async:
        return build_async(build, step, after, above)
    return _BUILDERS[step.kind](build, step, after, above)


def _build_single(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """A `@step` function, which receives the payload, or a `RecordStep`, which receives a message."""
    queue = retry_queue(build, step, above)
    fail, refused = boundaries(build, step, above, queue)
    drops = build.counts.drops if step.may_drop else None
    parts = classify_result(step.returns, after, refused, build.view, drops, step.step_id, step.name)
    whole = step.kind is StepKind.RECORD
    call = build.bound(step.bound.instance.execute if whole else step.bound.instance, step.takes)

    def emit(code: CodeWriter) -> None:
        given, result = code.payload, code.variable()
        argument = code.message(build.message) if whole else given
        code.attempt(fail, f"{result} = {code.name('call', call)}({argument})")
        unusual = _is_unusual(code, result, parts.plain)
        odd = f"{code.name('odd', parts.odd)}({result}, {given}, origin, {code.meta})"
        with code.block(f"if {unusual}:"):
            code.line(*code.ending(odd))
        code.payload, code.classes = result, parts.plain

    run = build.emitted(step.path, emit, after)
    entry = build.entry(run, run if step.takes_tombstones else after.tombstone, above)
    return entry if queue is None else queue.calls(entry)


def _is_unusual(code: CodeWriter, result: str, plain: frozenset[type]) -> str:
    """Whether a result needs a further check."""
    if len(plain) == 1:
        (only,) = plain
        unusual = f"type({result}) is not {code.name('plain', only)}"
    else:
        unusual = f"type({result}) not in {code.name('plain', plain)}"
    if code.classes and code.classes <= plain:
        # A step that only looks gives back what it was given, whose class is known.
        return f"{result} is not {code.payload} and {unusual}"
    return unusual


def _build_expand(build: StageBuilder, step: CompiledStep, after: NodeInput, above: Ancestors) -> NodeInput:
    """An `ExpandStep`: its results continue one by one."""
    return build_expansion(
        build,
        step.path,
        step.step_id,
        build.bound(step.bound.instance.execute, step.takes),
        step.returns,
        after,
        above,
        name=step.name,
        takes_messages=True,
        takes_tombstones=step.takes_tombstones,
        drops=build.counts.drops if step.may_drop else None,
        queue=retry_queue(build, step, above),
    )


_BUILDERS: dict[StepKind, Callable[[StageBuilder, CompiledStep, NodeInput, Ancestors], NodeInput]] = {
    StepKind.FUNCTION: _build_single,
    StepKind.RECORD: _build_single,
    StepKind.EXPAND: _build_expand,
    StepKind.BATCH: build_batch,
    StepKind.BATCH_EXPAND: build_batch_expand,
}

COMPONENTS = (NodeComponent((Step, StepFunction, RetriedStep), _compile, CompiledStep, _build, takes_classes=True),)
