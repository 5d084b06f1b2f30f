"""Scopes: an inner process whose steps are given resources by name, one record at a time or many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from loom.core.choices import choice
from loom.core.config.binding import Configurable
from loom.streaming.nodes.retry import CircuitBreaker, RateLimit, Retry
from loom.streaming.process import Process
from loom.streaming.typed import In, Out, Typed

__all__ = ["ContextFactory", "Ordering", "ResourceScope", "With", "WithAsync"]

#: names that mean something to a scope itself, now or in a later version, so that no dependency can have them
_PARAMETERS = frozenset(
    {
        *("scope", "process", "max_threads", "max_concurrency", "task_timeout_ms", "ordering"),
        *("retry", "rate_limit", "circuit_breaker"),
    }
)


class ResourceScope(StrEnum):
    """How long a resource lives: as long as the worker, or for one batch.

    >>> list(ResourceScope)
    [<ResourceScope.WORKER: 'worker'>, <ResourceScope.BATCH: 'batch'>]
    """

    WORKER = "worker"  #: opened when a step first needs it, closed when the worker ends
    BATCH = "batch"  #: opened when a step needs it in a batch, closed when that batch is done


class Ordering(StrEnum):
    """The order in which results leave a `WithAsync`.

    >>> list(Ordering)
    [<Ordering.PARTITION: 'partition'>, <Ordering.KEY: 'key'>, <Ordering.NONE: 'none'>]
    """

    PARTITION = "partition"  #: results leave in the order of their records; the calls overlap
    KEY = "key"  #: the call of a record begins when the one before with the same key is done
    NONE = "none"  #: results leave as they are done


class ContextFactory(Configurable):
    """Makes a context manager each time a scope opens: for every worker, and with `ResourceScope.BATCH` for every batch.

    >>> from contextlib import nullcontext
    >>> with ContextFactory(lambda: nullcontext("a connection")).create() as connection:
    ...     print(connection)
    a connection

    A subclass takes its settings from the config and makes the context in `create`:

    >>> class Connections(ContextFactory):
    ...     def __init__(self, url: str) -> None:
    ...         self.url = url
    ...     def create(self):
    ...         return nullcontext(f"a connection to {self.url}")
    >>> scope = With(process=Process(Price), connection=Connections.from_config("database"))

    Args:
        callable: called without arguments; returns a context manager.
    """

    def __init__(self, callable: Callable[[], Any]) -> None:  # noqa: A002 - the name is part of the contract
        self.callable = callable

    def create(self) -> Any:
        """A context manager that has not been entered yet.

        Returns:
            A synchronous one for `With`, an asynchronous one for `WithAsync`.
        """
        return self.callable()


@dataclass(frozen=True, init=False)
class With(Typed[In, Out]):
    """Run an inner process whose steps are given resources by name.

    >>> @step
    ... def price(order: Order, rates: dict[str, float]) -> PricedOrder:
    ...     return PricedOrder(order.id)
    >>> scoped = With(process=Process(price), rates={"EUR": 1.0})

    A dependency is a plain value, a synchronous context manager, or a `ContextFactory`. A step asks for it by the name of a
    parameter. Contexts are entered on the worker that uses them, in the order of the declaration, when a step first needs one,
    and left in reverse order, however the run ends. A context that cannot be entered ends the run; one that a batch has
    opened and that cannot be left does too, before anything of that batch is committed.

    Args:
        scope: how long a resource lives.
        process: the inner nodes.
        max_threads: how many records are in progress at once on each worker, 1 or more. With more than one, blocking steps
            wait together, in threads that share the resources; results still leave in the order of the records.
        retry: calls the inner process again, from its beginning, when one of its steps fails. With this policy or one of the
            next two, each record is a call in a thread, as with `max_threads`.
        rate_limit: how many calls may begin per second, in each worker.
        circuit_breaker: stops calls, and reading, while the called system is down.
        deps: context managers, factories or plain values, by name. A context manager that is given as an object is entered
            once; give a `ContextFactory` where several workers, or batches, each need their own.

    Raises:
        ValueError: for a limit below 1, or a dependency that has the name of a parameter of a scope.
        TypeError: for a policy that is none.
    """

    scope: ResourceScope
    process: Process
    max_threads: int
    retry: Retry | None
    rate_limit: RateLimit | None
    circuit_breaker: CircuitBreaker | None
    deps: Mapping[str, Any]

    def __init__(
        self,
        scope: ResourceScope = ResourceScope.WORKER,
        *,
        process: Process,
        max_threads: int = 1,
        retry: Retry | None = None,
        rate_limit: RateLimit | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        **deps: Any,
    ) -> None:
        _check_limit("With", "max_threads", max_threads)
        _check_names("With", deps)
        object.__setattr__(self, "scope", choice(ResourceScope, scope, "With(scope=…)"))
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "max_threads", max_threads)
        _set_policies(self, "With", retry, rate_limit, circuit_breaker)
        object.__setattr__(self, "deps", deps)


@dataclass(frozen=True, init=False)
class WithAsync(Typed[In, Out]):
    """Run an inner process of async steps, several records at a time, in order and across batches.

    >>> class Look(RecordStep[Order, PricedOrder]):
    ...     async def execute(self, message: Message[Order], client: Any) -> PricedOrder:
    ...         return PricedOrder(await client.price_of(message.payload.id))
    >>> clients = ContextFactory(lambda: None)
    >>> scoped = WithAsync(process=Process(Look), client=clients, max_concurrency=50, task_timeout_ms=2_000)

    Each record is one call of the inner process; after `CollectBatch`, each batch is. Synchronous steps, routers and
    expansions may be inside; they run in the event loop, between the calls. The offset of a record is not committed before
    its call is done, and a stop waits for calls in progress. A call may be repeated after a crash: give the called system
    `message.meta.message_id` (`topic:partition:offset`) as an idempotency key.

    Args:
        scope: how long a resource lives. With `BATCH` the results of a batch leave when its resources have been closed.
        max_concurrency: the most calls in progress at once on each worker, 1 or more.
        task_timeout_ms: the longest time for the call of one record, all its steps together, in milliseconds, 1 or more. It is
            cancelled then and becomes a `TASK` error. `None` means no limit.
        process: the inner nodes.
        ordering: the order in which results leave: that of the records of a partition (`"partition"`), of a key (`"key"`), or
            none (`"none"`).
        retry: makes the call of a record again, from its beginning, when one of its steps fails. It waits outside the event loop,
            so it takes no place of `max_concurrency`; under `ordering="key"` later records of its key wait for it.
        rate_limit: how many calls may begin per second, in each worker.
        circuit_breaker: stops calls, and reading, while the called system is down.
        deps: async context managers, factories or plain values, by name. A context manager that is given as an object is entered
            once; give a `ContextFactory` where several workers, or batches, each need their own.

    Raises:
        ValueError: for a limit below 1, an unknown ordering, or a dependency that has the name of a parameter of a scope.
        TypeError: for a policy that is none.
    """

    scope: ResourceScope
    max_concurrency: int
    task_timeout_ms: int | None
    process: Process
    ordering: Ordering
    retry: Retry | None
    rate_limit: RateLimit | None
    circuit_breaker: CircuitBreaker | None
    deps: Mapping[str, Any]

    def __init__(
        self,
        scope: ResourceScope = ResourceScope.WORKER,
        max_concurrency: int = 10,
        task_timeout_ms: int | None = None,
        *,
        process: Process,
        ordering: Literal["partition", "key", "none"] | Ordering = Ordering.PARTITION,
        retry: Retry | None = None,
        rate_limit: RateLimit | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        **deps: Any,
    ) -> None:
        _check_limit("WithAsync", "max_concurrency", max_concurrency)
        if task_timeout_ms is not None:
            _check_limit("WithAsync", "task_timeout_ms", task_timeout_ms)
        _check_names("WithAsync", deps)
        object.__setattr__(self, "scope", choice(ResourceScope, scope, "WithAsync(scope=…)"))
        object.__setattr__(self, "max_concurrency", max_concurrency)
        object.__setattr__(self, "task_timeout_ms", task_timeout_ms)
        object.__setattr__(self, "process", process)
        object.__setattr__(self, "ordering", choice(Ordering, ordering, "WithAsync(ordering=…)"))
        _set_policies(self, "WithAsync", retry, rate_limit, circuit_breaker)
        object.__setattr__(self, "deps", deps)


def _set_policies(scope: object, what: str, retry: Any, rate_limit: Any, circuit_breaker: Any) -> None:
    """Set the policies of a scope. Raises `TypeError` for one of another type."""
    declared = (
        ("retry", Retry, retry),
        ("rate_limit", RateLimit, rate_limit),
        ("circuit_breaker", CircuitBreaker, circuit_breaker),
    )
    for name, kind, policy in declared:
        if policy is not None and not isinstance(policy, kind):
            raise TypeError(
                f"{what}({name}=…) is a parameter of a scope and takes a {kind.__name__}, not {policy!r}; to give its steps a "
                "dependency of that name, rename the dependency, and the parameter of the step that takes it"
            )
        object.__setattr__(scope, name, policy)


def _check_limit(scope: str, name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{scope}({name}=…) takes a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{scope}({name}={value}) must be at least 1")


def _check_names(scope: str, deps: Mapping[str, Any]) -> None:
    for name in deps:
        if name in _PARAMETERS:
            raise ValueError(
                f"{scope}({name}=…) is a parameter of a scope and not the name of a dependency; rename the dependency, and the "
                "parameter of the step that takes it"
            )
