"""Steps: the work of a flow, as typed classes or plain functions.

A flow names a step class, an instance, a `@step` function, or a binding to a config section. The compiler reads
the types; the stages call `execute`, or the function itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload

from loom.core.config.binding import Configurable
from loom.core.model import LoomFrozenStruct
from loom.streaming.nodes.retry import Retry

if TYPE_CHECKING:
    from loom.core.logger import Logger
    from loom.streaming.message import Message

__all__ = [
    "BatchExpandStep",
    "BatchStep",
    "ExpandStep",
    "RecordStep",
    "RetriedStep",
    "Step",
    "StepFunction",
    "step",
]

In = TypeVar("In")
Out = TypeVar("Out")
Args = ParamSpec("Args")

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class RetriedStep(LoomFrozenStruct):
    """A step with a retry policy, as a node of a process. `with_retry` makes one.

    >>> Price.with_retry(Retry(attempts=3)).retry.attempts
    3

    Args:
        step: a step class, an instance, or a binding to the config.
        retry: the policy.

    Raises:
        TypeError: if `retry` is no `Retry`.
    """

    step: Any
    retry: Retry

    def __post_init__(self) -> None:
        _check(self.retry, "with_retry()")

    def from_config(self, path: str, /, **overrides: Any) -> RetriedStep:
        """The same with a step that is built from the section at a dotted path.

        >>> priced = Price.with_retry(Retry(attempts=3)).from_config("pricing", digits=3)
        >>> priced.step.config_path
        'pricing'

        Args:
            path: the section whose keys become constructor arguments.
            overrides: constructor arguments that win over the section.

        Raises:
            TypeError: if the step is not a class.
        """
        return RetriedStep(self._step_class("from_config").from_config(path, **overrides), self.retry)

    def configure(self, **overrides: Any) -> RetriedStep:
        """The same with a step that is built from these constructor arguments alone.

        Args:
            overrides: the constructor arguments.

        Raises:
            TypeError: if the step is not a class.
        """
        return RetriedStep(self._step_class("configure").configure(**overrides), self.retry)

    def _step_class(self, asked: str) -> type[Step[Any, Any]]:
        if not (isinstance(self.step, type) and issubclass(self.step, Step)):
            raise TypeError(f"{asked}() needs a step class, and with_retry() was called on {self.step!r}")
        return self.step


class _OfClassOrInstance(Generic[Args, Out]):
    """A method that is called on a class or on an instance of it, and is given whichever it was."""

    def __init__(self, function: Callable[Concatenate[Any, Args], Out]) -> None:
        self.__func__ = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[Args, Out]:
        return MethodType(self.__func__, owner if instance is None else instance)


class Step(Configurable, Generic[In, Out]):
    """What every step class has: a name, a log, and bindings to the config. Derive from one of its subclasses.

    One instance serves a whole plan and is shared by the worker threads: a step with state of its own must protect it.

    >>> class Shout(RecordStep[str, str]):
    ...     name = "shout_loudly"
    ...     def execute(self, message: Message[str]) -> str:
    ...         return message.payload.upper()
    >>> Shout.step_name()
    'shout_loudly'
    """

    #: the name in step ids, logs and error records; by default the class name in snake case
    name: ClassVar[str | None] = None

    @classmethod
    def step_name(cls) -> str:
        """The declared name, or else the class name in snake case.

        >>> class PriceOrder(RecordStep[int, int]): ...
        >>> PriceOrder.step_name()
        'price_order'
        """
        return cls.name or _WORD.sub("_", cls.__name__).lower()

    @_OfClassOrInstance
    def with_retry(self, retry: Retry) -> RetriedStep:
        """This step with a retry policy. Called on the class or on an instance.

        >>> retried = Process(Price.with_retry(Retry(attempts=3)), Audit().with_retry(Retry(timeout_ms=5_000)))

        Args:
            retry: the policy.

        Raises:
            TypeError: if it is no `Retry`.
        """
        return RetriedStep(self, retry)

    @property
    def log(self) -> Logger:
        """A structured log bound to the name of this step. Use it sparingly: a line per record is slow."""
        from loom.core.logger import get_logger

        return get_logger(type(self).__module__, step=self.step_name())


class RecordStep(Step[In, Out]):
    """One message in, one payload or message out.

    >>> class Price(RecordStep[Order, PricedOrder]):
    ...     def execute(self, message: Message[Order]) -> PricedOrder:
    ...         return PricedOrder(message.payload.id)
    >>> Price().execute(Message(Order(7), MessageMeta("mine")))
    PricedOrder(id=7)

    If it returns a payload, the metadata of the message is kept; if it returns a `Message`, payload, key and headers are
    replaced. `None` drops the record if the return type allows it, and is a `TASK` error otherwise. Raising a `DomainError`
    makes the record a `BUSINESS` error, raising anything else a `TASK` error.
    """

    def execute(self, message: Message[In], *args: Any, **deps: Any) -> Any:
        """Process one message.

        Args:
            message: the message; `message.payload` is an `In`.
            args: none so far.
            deps: resources of an enclosing `With` or `WithAsync`, by name.

        Returns:
            An `Out`, a `Message[Out]`, or `None`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, message)")


class ExpandStep(Step[In, Out]):
    """One message in, any number of payloads or messages out, in order.

    An expansion that raises part-way emits nothing; the record is one error.

    >>> class Lines(ExpandStep[Order, Line]):
    ...     def execute(self, message: Message[Order]) -> list[Line]:
    ...         return list(message.payload.lines)
    >>> Lines().execute(Message(Order(7, lines=(Line("a"), Line("b"))), MessageMeta("mine")))
    [Line(sku='a'), Line(sku='b')]
    """

    def execute(self, message: Message[In], *args: Any, **deps: Any) -> Iterable[Any]:
        """Expand one message.

        Args:
            message: the message; `message.payload` is an `In`.
            args: none so far.
            deps: resources of an enclosing `With` or `WithAsync`, by name.

        Returns:
            The results in order: each an `Out` or a `Message[Out]`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, message)")


class BatchStep(Step[In, Out]):
    """A list of messages in, a list of as many entries out.

    After `CollectBatch` the list is the collected batch; otherwise it is what was read at once. An entry is a payload, a
    `Message`, an exception instance (which fails that item alone), or `None` if the return type allows it. If `execute`
    raises, or returns another number of entries, every item fails with an envelope of its own; nothing is run twice.

    >>> class Store(BatchStep[Order, PricedOrder]):
    ...     def execute(self, messages: list[Message[Order]]) -> list[PricedOrder]:
    ...         return [PricedOrder(message.payload.id) for message in messages]
    >>> Store().execute([Message(Order(7), MessageMeta("a")), Message(Order(8), MessageMeta("b"))])
    [PricedOrder(id=7), PricedOrder(id=8)]
    """

    def execute(self, messages: list[Message[In]], *args: Any, **deps: Any) -> list[Any]:
        """Process one batch.

        Args:
            messages: the messages, at least one.
            args: none so far.
            deps: resources of an enclosing `With` or `WithAsync`, by name.

        Returns:
            One entry for each message, in the same order.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, messages)")


class BatchExpandStep(Step[In, Out]):
    """A batch of messages in; for each of them any number of payloads or messages out.

    An entry is an iterable of results, in order, or an exception instance, which fails that item alone. If `execute` raises,
    or returns another number of entries, every item fails with an envelope of its own; nothing is run twice. An entry that
    raises while it is iterated fails its item and emits nothing of it.

    >>> class Twice(BatchExpandStep[Order, Order]):
    ...     def execute(self, messages: list[Message[Order]]) -> list[list[Order]]:
    ...         return [[message.payload, message.payload] for message in messages]
    >>> Twice().execute([Message(Order(7), MessageMeta("a"))])
    [[Order(id=7, country='ES', lines=()), Order(id=7, country='ES', lines=())]]
    """

    def execute(self, messages: list[Message[In]], *args: Any, **deps: Any) -> list[Iterable[Any]]:
        """Expand one batch.

        Args:
            messages: the messages, at least one.
            args: none so far.
            deps: resources of an enclosing `With` or `WithAsync`, by name.

        Returns:
            One iterable of results for each message, in the same order.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, messages)")


class StepFunction(Generic[Args, Out]):
    """A typed function as a step; made by `@step`, and still callable as the function it was."""

    __name__: str
    __wrapped__: Callable[Args, Out]

    def __init__(self, function: Callable[Args, Out], name: str | None = None, retry: Retry | None = None) -> None:
        # A `functools.partial` has no name of its own.
        self.__name__ = type(function).__name__
        update_wrapper(self, function)
        self.name = name
        if retry is not None:
            _check(retry, "@step(retry=…)")
        self.retry = retry

    def step_name(self) -> str:
        """The declared name, else the function's."""
        return self.name or self.__name__

    def with_retry(self, retry: Retry) -> StepFunction[Args, Out]:
        """The same step with another retry policy.

        Args:
            retry: the policy.

        Raises:
            TypeError: if it is no `Retry`.
        """
        return StepFunction(self.function, self.name, retry)

    @property
    def function(self) -> Callable[Args, Out]:
        """The function itself, for who calls it per record."""
        return self.__wrapped__

    def __call__(self, *args: Args.args, **kwargs: Args.kwargs) -> Out:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"step({self.__name__})"


@overload
def step(
    function: Callable[Args, Out], /, *, name: str | None = None, retry: Retry | None = None
) -> StepFunction[Args, Out]: ...
@overload
def step(
    *, name: str | None = None, retry: Retry | None = None
) -> Callable[[Callable[Args, Out]], StepFunction[Args, Out]]: ...
def step(
    function: Callable[Args, Out] | None = None, /, *, name: str | None = None, retry: Retry | None = None
) -> StepFunction[Args, Out] | Callable[[Callable[Args, Out]], StepFunction[Args, Out]]:
    """Make a step of a function: payload in, payload out.

    >>> @step
    ... def shout(text: str) -> str:
    ...     return text.upper()
    >>> shout("hi")
    'HI'
    >>> @step(retry=Retry(attempts=3))
    ... def look_up(order: Order) -> PricedOrder:
    ...     return PricedOrder(order.id)

    `None`, errors and `Message`s as results mean the same as in a `RecordStep`.

    Args:
        function: takes the payload and is annotated with its type and that of the result.
        name: the name in step ids; by default that of the function.
        retry: calls the function again when it fails; by default it is called once.

    Returns:
        The step, which can still be called as the function.

    Raises:
        TypeError: if `retry` is no `Retry`.
    """
    if function is not None:
        return StepFunction(function, name, retry)
    return lambda wrapped: StepFunction(wrapped, name, retry)


def _check(retry: object, where: str) -> None:
    if not isinstance(retry, Retry):
        raise TypeError(f"{where} takes a Retry, not {retry!r}")
