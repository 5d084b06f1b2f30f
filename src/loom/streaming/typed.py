"""The type parameters of declarations: what comes in, and what goes out.

Type checkers fill in `Any` where an author says nothing, so that no declaration asks for an annotation. At run time they
are plain variables, since this version of Python has none with defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVar

    In = TypeVar("In", default=Any)
    Out = TypeVar("Out", default=Any)
    P = TypeVar("P", default=Any)

    class Typed(Generic[In, Out]):
        """A declaration that may say what flows in and out: `Process[Order, Priced](…)`."""

else:
    from typing import TypeVar

    In = TypeVar("In")
    Out = TypeVar("Out")
    P = TypeVar("P")

    class Typed:
        """A declaration that may say what flows in and out, for readers: `Process[Order, Priced](…)`."""

        __slots__ = ()

        def __class_getitem__(cls, types: Any) -> Any:
            return cls


__all__ = ["In", "Out", "P", "Typed"]
