"""Scopes: a process whose steps are given resources by name."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.dependencies import bind_dependencies
from loom.streaming.compiler.model import (
    CompiledBranch,
    CompiledNode,
    NodePath,
    StepId,
    walk_nodes,
)
from loom.streaming.compiler.scope_model import CompiledDependency
from loom.streaming.compiler.walk import Compiled, NodeComponent, ProcessCompiler, ScopeNames, StreamType
from loom.streaming.nodes.retry import CircuitBreaker, RateLimit, Retry
from loom.streaming.nodes.scope import Ordering, ResourceScope, With, WithAsync
from loom.streaming.nodes.shape import StreamShape
from loom.streaming.process import Process
from loom.streaming.runtime.scopes.calling import CallingScope
from loom.streaming.runtime.scopes.inner import build_inner
from loom.streaming.runtime.scopes.loop_runner import LoopRunner
from loom.streaming.runtime.scopes.policy import NO_POLICY
from loom.streaming.runtime.scopes.resources import Resources
from loom.streaming.runtime.scopes.schedule import waiting_beside
from loom.streaming.runtime.scopes.scope_policy import ScopePolicy
from loom.streaming.runtime.scopes.thread_runner import ThreadRunner
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.codegen import CodeWriter
from loom.streaming.runtime.stages.node_input import Ancestors, NodeInput

__all__ = ["COMPONENTS", "CompiledScope", "CompiledWith", "CompiledWithAsync"]


class CompiledScope(CompiledNode, kw_only=True):
    """A process with dependencies that its steps are given by name."""

    scope: ResourceScope
    dependencies: tuple[CompiledDependency, ...]
    process: CompiledBranch
    retry: Retry | None = None
    rate_limit: RateLimit | None = None
    circuit_breaker: CircuitBreaker | None = None

    @property
    def has_policy(self) -> bool:
        """Whether anything decides when its calls begin, or whether again."""
        return self.retry is not None or self.rate_limit is not None or self.circuit_breaker is not None

    @property
    def longest_wait_ms(self) -> float | None:
        return None if self.retry is None else self.retry.longest_ms

    @property
    def branches(self) -> tuple[CompiledBranch, ...]:
        return (self.process,)

    @property
    def inside(self) -> tuple[CompiledNode, ...]:
        return self.process.nodes

    @property
    def given(self) -> tuple[Any, ...]:
        # What a binding or a factory makes belongs to its plan.
        bound = (dependency.bound for dependency in self.dependencies)
        return tuple(one.instance for one in bound if one.target is one.instance)

    @property
    def summary(self) -> str:
        names = ", ".join(dependency.name for dependency in self.dependencies)
        told = [f"{names}, for each {self.scope.value}"] if names else []
        if self.retry is not None:
            told.append(f"up to {self.retry.attempts} attempts")
        if self.rate_limit is not None:
            told.append(f"up to {self.rate_limit.per_second:g} calls per second")
        if self.circuit_breaker is not None:
            told.append(f"a circuit breaker after {self.circuit_breaker.failures} failures")
        return f" {'; '.join(told)}" if told else ""


class CompiledWith(CompiledScope, kw_only=True):
    """A scope with synchronous resources.

    >>> @step
    ... def price(order: Order, rates: dict[str, float]) -> PricedOrder:
    ...     return PricedOrder(order.id)
    >>> node = compiled(With(process=Process(price), rates={"EUR": 1.0}), Drain()).nodes[0]
    >>> node.step_id, [dependency.name for dependency in node.dependencies], node.inside[0].takes
    ('orders.with', ['rates'], ('rates',))
    """

    max_threads: int

    @property
    def in_threads(self) -> bool:
        """Whether each record is a call of its own, in a thread: also where a policy may delay it."""
        return self.max_threads > 1 or self.has_policy

    @property
    def gathers(self) -> bool:
        return self.in_threads

    @property
    def waits(self) -> bool:
        return self.in_threads

    @property
    def overtakes(self) -> bool:
        return self.in_threads

    @property
    def summary(self) -> str:
        return f"{super().summary}: up to {self.max_threads} in threads" if self.max_threads > 1 else super().summary


class CompiledWithAsync(CompiledScope, kw_only=True):
    """A scope whose calls overlap in an event loop.

    >>> @step
    ... async def look(order: Order) -> PricedOrder:
    ...     return PricedOrder(order.id)
    >>> plan = compiled(WithAsync(process=Process(look), max_concurrency=50), Drain())
    >>> plan.nodes[0].step_id, plan.nodes[0].max_concurrency, plan.needs_async_bridge
    ('orders.with_async', 50, True)
    """

    max_concurrency: int
    task_timeout_ms: int | None
    ordering: Ordering

    @property
    def gathers(self) -> bool:
        return True

    @property
    def waits(self) -> bool:
        return True

    @property
    def awaits(self) -> bool:
        return True

    @property
    def overtakes(self) -> bool:
        return self.ordering is Ordering.PARTITION

    @property
    def summary(self) -> str:
        limit = f", each within {self.task_timeout_ms} ms" if self.task_timeout_ms is not None else ""
        order = "in no order" if self.ordering is Ordering.NONE else f"in order of the {self.ordering.value}"
        return f"{super().summary}: up to {self.max_concurrency} at once, {order}{limit}"


class _Found(LoomFrozenStruct):
    """The parts of a scope, compiled."""

    step_id: StepId
    dependencies: tuple[CompiledDependency, ...]
    process: CompiledBranch
    left: StreamType


def _compile_with(walk: ProcessCompiler, node: With[Any, Any], path: NodePath, flowing: StreamType) -> Compiled:
    """The inner nodes are part of the process around them: a record goes through them one step after the other."""
    found = _scope(walk, node, "With", "with", path, flowing, is_async=False)
    if found is None:
        return None
    made = CompiledWith(
        path=path,
        step_id=found.step_id,
        in_shape=flowing.shape,
        out_shape=found.left.shape,
        accepts=flowing.payloads,
        returns=found.left.payloads,
        scope=node.scope,
        dependencies=found.dependencies,
        process=found.process,
        max_threads=node.max_threads,
        retry=node.retry,
        rate_limit=node.rate_limit,
        circuit_breaker=node.circuit_breaker,
    )
    if made.in_threads:
        what = "With(max_threads=…)" if made.max_threads > 1 else "With with a policy"
        _refuse_gathering(walk, what, found.process.nodes)
    elif node.scope is ResourceScope.BATCH:
        _refuse(walk, "With(ResourceScope.BATCH)", found.process.nodes, "waits", "keeps records beyond their batch")
    return made, replace(found.left, parent=flowing.parent)


def _compile_with_async(
    walk: ProcessCompiler, node: WithAsync[Any, Any], path: NodePath, flowing: StreamType
) -> Compiled:
    """Each record, or each collected batch, is a call of the inner process."""
    found = _scope(walk, node, "WithAsync", "with_async", path, flowing, is_async=True)
    if found is None:
        return None
    _refuse_gathering(walk, "WithAsync", found.process.nodes)
    made = CompiledWithAsync(
        path=path,
        step_id=found.step_id,
        in_shape=flowing.shape,
        out_shape=found.left.shape,
        accepts=flowing.payloads,
        returns=found.left.payloads,
        scope=node.scope,
        dependencies=found.dependencies,
        process=found.process,
        max_concurrency=node.max_concurrency,
        task_timeout_ms=node.task_timeout_ms,
        ordering=node.ordering,
        retry=node.retry,
        rate_limit=node.rate_limit,
        circuit_breaker=node.circuit_breaker,
    )
    return made, replace(found.left, parent=flowing.parent)


def _scope(
    walk: ProcessCompiler,
    node: With[Any, Any] | WithAsync[Any, Any],
    what: str,
    name: str,
    path: NodePath,
    flowing: StreamType,
    *,
    is_async: bool,
) -> _Found | None:
    if walk.scope is not None:
        walk.issues.error(
            Code.SCOPE_NODE,
            f"{what} is inside another scope",
            path=path,
            remedy="put one behind the other, or give the outer scope the dependencies of both",
        )
        return None
    step_id = walk.numbered(flowing.parent, name, path)
    dependencies = bind_dependencies(
        walk, what, node.deps, path, is_async=is_async, per_batch=node.scope is ResourceScope.BATCH
    )
    names = walk.scope = ScopeNames(node.deps, is_async=is_async)
    try:
        inner: object = node.process
        nodes, left = walk.nodes(inner if isinstance(inner, Process) else (inner,), path, replace(flowing, left=""))
    finally:
        walk.scope = None
    # A node that was refused may have been the one that takes it.
    refused = len(nodes) < (len(inner) if isinstance(inner, Process) else 1)
    for unused in [] if refused else sorted(names.names):
        if unused not in names.taken:
            walk.issues.error(
                Code.SCOPE_DEPENDENCY,
                f"no step in {what} takes {unused!r}",
                path=path,
                expected="a parameter of that name in one of its steps",
                found=", ".join(sorted(names.taken)) or "none that is taken",
                remedy=f"add a parameter {unused!r} to the step that needs it, or remove {unused}=…",
            )
    process = CompiledBranch(None, "process", "with", nodes, None, path)
    return _Found(step_id, dependencies, process, left)


def _refuse(walk: ProcessCompiler, what: str, nodes: tuple[CompiledNode, ...], trait: str, why: str) -> None:
    for inner in walk_nodes(nodes):
        if getattr(inner, trait):
            walk.issues.error(
                Code.SCOPE_NODE,
                f"{inner.step_id} {why}, which cannot be done inside {what}",
                path=inner.path,
                remedy="put it in front of the scope, or behind it",
            )


def _refuse_gathering(walk: ProcessCompiler, what: str, nodes: tuple[CompiledNode, ...]) -> None:
    """Calls are made one by one, so nothing inside can gather what comes with others."""
    for inner in walk_nodes(nodes):
        if inner.waits and inner.step_kind is not None:
            walk.issues.error(
                Code.SCOPE_NODE,
                f"{inner.step_id} has a retry policy of its own, which cannot be kept inside {what}",
                path=inner.path,
                remedy=f"remove it from the step, and repeat the whole call: {what}(retry=…)",
            )
        elif inner.gathers:
            walk.issues.error(
                Code.SCOPE_NODE,
                f"{inner.step_id} gathers the records of several calls, which cannot be done inside {what}",
                path=inner.path,
                remedy="collect in front of the scope, Process(CollectBatch(…), "
                f"{what}(process=…)): each batch is a call then; or put the node behind the scope",
            )


def _build_with(build: StageBuilder, node: CompiledWith, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """The inner nodes, fused with those around them; what they are given is opened by the first step that needs it."""
    if node.in_threads:
        return _build_threads(build, node, after, above)
    stage, per_batch = build.stage, node.scope is ResourceScope.BATCH

    def opened(resources: Resources) -> None:
        stage.hold(resources, f"resources of {node.step_id}", lambda: resources.close(stage.services.lifetime.fault))

    resources = Resources(node.step_id, node.dependencies, None if per_batch else opened)
    if per_batch:
        stage.batch_scopes.append(resources)
    build.provides = resources
    try:
        entry = build.chain(node.inside, after if node.continues else None, above)
    finally:
        build.provides = None

    def emit(code: CodeWriter) -> None:
        build.write_chain(code, node.inside, None, ())

    build.written(node.path, emit)
    return entry


def _build_threads(build: StageBuilder, node: CompiledWith, after: NodeInput | None, above: Ancestors) -> NodeInput:
    """Calls in threads, each with a copy of the inner process."""
    per_batch = node.scope is ResourceScope.BATCH
    policy = _policy(build, node)
    attempts = policy.attempts if policy is not None else None
    processes = [build_inner(build, node, after, above, attempts) for _ in range(node.max_threads)]
    runner = ThreadRunner(build.stage, node.step_id, node.dependencies, processes, per_batch=per_batch)
    scope = CallingScope(
        build,
        node.step_id,
        above,
        runner,
        limit=node.max_threads,
        timeout_s=None,
        by_key=False,
        watched=True,
        per_batch=per_batch,
        policy=policy or NO_POLICY,
    )
    return scope.batch_input() if node.in_shape is StreamShape.BATCH else scope.input()


def _policy(build: StageBuilder, node: CompiledScope) -> ScopePolicy | None:
    if not node.has_policy:
        return None
    return ScopePolicy(build, node.step_id, node.retry, node.rate_limit, node.circuit_breaker)


def _build_with_async(
    build: StageBuilder, node: CompiledWithAsync, after: NodeInput | None, above: Ancestors
) -> NodeInput:
    """Calls in the event loop; they leave the loop over a batch, since they are done later."""
    per_batch = node.scope is ResourceScope.BATCH
    policy = _policy(build, node)
    runner = LoopRunner(
        build.stage,
        node.step_id,
        node.dependencies,
        build_inner(build, node, after, above, policy.attempts if policy is not None else None),
        limit=node.max_concurrency,
        timeout_ms=node.task_timeout_ms,
        per_batch=per_batch,
    )
    scope = CallingScope(
        build,
        node.step_id,
        above,
        runner,
        limit=node.max_concurrency,
        lead=waiting_beside(node.max_concurrency) if policy is None else 0,
        timeout_s=None if node.task_timeout_ms is None else node.task_timeout_ms / 1000,
        by_key=node.ordering is Ordering.KEY,
        watched=node.ordering is Ordering.PARTITION or build.plan.source.mode.transaction,
        per_batch=per_batch,
        policy=policy or NO_POLICY,
    )
    return scope.batch_input() if node.in_shape is StreamShape.BATCH else scope.input()


COMPONENTS = (
    NodeComponent((With,), _compile_with, CompiledWith, _build_with),
    NodeComponent((WithAsync,), _compile_with_async, CompiledWithAsync, _build_with_async),
)
