"""Steps: the work of a flow, as typed classes or plain functions.

A flow names a step class, an instance, a `@step` function, or a binding to a config section. The compiler reads
the types; the stages call `execute`, or the function itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, overload

from loom.core.config.binding import Configurable

if TYPE_CHECKING:
    from loom.core.logger import Logger
    from loom.streaming.message import Message

__all__ = ["BatchExpandStep", "BatchStep", "ExpandStep", "RecordStep", "Step", "StepFunction", "step"]

In = TypeVar("In")
Out = TypeVar("Out")
Args = ParamSpec("Args")

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Step(Configurable, Generic[In, Out]):
    """What every step class has: a name, a log, and bindings to the config.

    One instance serves a whole plan and is shared by the worker threads: a step that keeps state of its own
    guards it itself.
    """

    #: the name in step ids, logs and error records; by default the class name in snake case
    name: ClassVar[str | None] = None

    @classmethod
    def step_name(cls) -> str:
        """The declared name, else the class name in snake case.

        >>> class PriceOrder(RecordStep[int, int]): ...
        >>> PriceOrder.step_name()
        'price_order'
        """
        return cls.name or _WORD.sub("_", cls.__name__).lower()

    @property
    def log(self) -> Logger:
        """A structured log bound to this step's name. Logging per record is the author's own choice."""
        from loom.core.logger import get_logger

        return get_logger(type(self).__module__, step=self.step_name())


class RecordStep(Step[In, Out]):
    """One message in, one payload or message out.

    >>> class Price(RecordStep[Order, PricedOrder]):
    ...     def __init__(self, currency: str) -> None:
    ...         self.currency = currency
    ...     def execute(self, message: Message[Order]) -> PricedOrder: ...

    Returning a payload carries the message's metadata on; returning a `Message` replaces payload, key and headers.
    Returning `None` drops the record where the return type says `| None`, and is a `TASK` error elsewhere. Raising a
    `DomainError` makes a `BUSINESS` error of the record, raising anything else a `TASK` error.
    """

    def execute(self, message: Message[In], *args: Any, **deps: Any) -> Any:
        """Work on one message."""
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, message)")


class ExpandStep(Step[In, Out]):
    """One message in, any number of payloads or messages out, in order.

    An expansion that raises part-way emits nothing; the record is one error.
    """

    def execute(self, message: Message[In], *args: Any, **deps: Any) -> Iterable[Any]:
        """Expand one message."""
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, message)")


class BatchStep(Step[In, Out]):
    """A list of messages in, a list of as many entries out.

    On records the list is what the engine hands over at once. An entry is a payload, a `Message`, an exception
    instance (which fails that item alone), or `None` where the return type allows it. When `execute` raises, or
    returns another number of entries, every item fails with an envelope of its own; nothing is run twice.
    """

    def execute(self, messages: list[Message[In]], *args: Any, **deps: Any) -> list[Any]:
        """Work on one batch."""
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, messages)")


class BatchExpandStep(Step[In, Out]):
    """A batch of messages in; for each of them any number of payloads or messages out.

    An entry is an iterable of results, in order, or an exception instance, which fails that item alone. When `execute`
    raises, or returns another number of entries, every item fails with an envelope of its own; nothing is run twice. An
    entry that raises while it is iterated fails its item and emits nothing of it.
    """

    def execute(self, messages: list[Message[In]], *args: Any, **deps: Any) -> list[Iterable[Any]]:
        """Expand one batch."""
        raise NotImplementedError(f"{type(self).__qualname__} must define execute(self, messages)")


class StepFunction(Generic[Args, Out]):
    """A typed function as a step; made by `@step`, and still callable as the function it was."""

    __name__: str
    __wrapped__: Callable[Args, Out]

    def __init__(self, function: Callable[Args, Out], name: str | None = None) -> None:
        # A `functools.partial` has no name of its own.
        self.__name__ = type(function).__name__
        update_wrapper(self, function)
        self.name = name

    def step_name(self) -> str:
        """The declared name, else the function's."""
        return self.name or self.__name__

    @property
    def function(self) -> Callable[Args, Out]:
        """The function itself, for who calls it per record."""
        return self.__wrapped__

    def __call__(self, *args: Args.args, **kwargs: Args.kwargs) -> Out:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"step({self.__name__})"


@overload
def step(function: Callable[Args, Out], /, *, name: str | None = None) -> StepFunction[Args, Out]: ...
@overload
def step(*, name: str) -> Callable[[Callable[Args, Out]], StepFunction[Args, Out]]: ...
def step(
    function: Callable[Args, Out] | None = None, /, *, name: str | None = None
) -> StepFunction[Args, Out] | Callable[[Callable[Args, Out]], StepFunction[Args, Out]]:
    """Make a step of a function: payload in, payload out.

    >>> @step
    ... def shout(text: str) -> str:
    ...     return text.upper()
    >>> shout("hi")
    'HI'

    `name` gives it another name in step ids. `None`, errors and `Message`s as results mean what they mean in a
    `RecordStep`.
    """
    if function is not None:
        return StepFunction(function, name)
    return lambda wrapped: StepFunction(wrapped, name)
