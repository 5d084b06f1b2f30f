"""When a call of a scope may start, and whether it is repeated. The place for retries, rate limits and circuit breakers.

`CallingScope` asks its policy twice for each attempt, on the worker's thread, with the worker's clock (the manual one of the
test kit): `before` it starts the attempt and `after` that has an outcome. A policy keeps no thread and never sleeps: it
answers with a time, until which the call waits in the scope. Its offset is held meanwhile, and so is its key under
`ordering="key"`; its neighbours go on. What an attempt has made is thrown away when it is repeated.
"""

from __future__ import annotations

from typing import Protocol

from loom.streaming.runtime.scopes.call import Call

__all__ = ["NO_POLICY", "CallPolicy"]


class CallPolicy(Protocol):
    """Decides about the calls of one scope of one worker."""

    @property
    def is_paused(self) -> bool:
        """Whether calls are kept back until one of them succeeds; a call that was not tried yet then goes first."""

    def before(self, call: Call, now: float) -> float | None:
        """A call is about to start.

        Returns:
            `None` to start it, else the time, in seconds of the worker's clock, before which no call of the scope starts;
            infinity: not before a call in progress has ended.
        """

    def after(self, call: Call, now: float) -> float | None:
        """An attempt (`call.attempt`, from 1 on) is done; `call.errors` holds what its steps raised.

        May change the outcome, for example to note in an error how many attempts there were.

        Returns:
            `None` where the outcome is final, else the time at which the call is repeated from its beginning.
        """

    def leaving(self, call: Call) -> None:
        """What came of a call is about to leave the scope."""

    def forget(self, call: Call, now: float) -> None:
        """A call has left the scope, or was discarded."""

    def credit(self, waiting: int) -> int | None:
        """How many more records may be read while so many calls are here; `None` where the policy sets no limit."""

    def input_over(self) -> None:
        """No more records come."""

    def end(self) -> None:
        """A stop is the last chance of every call: nothing is kept back and nothing repeated from now on."""


class _NoPolicy:
    """Every call starts at once, and once."""

    is_paused = False

    def before(self, call: Call, now: float) -> float | None:
        return None

    def after(self, call: Call, now: float) -> float | None:
        return None

    def leaving(self, call: Call) -> None: ...

    def forget(self, call: Call, now: float) -> None: ...

    def credit(self, waiting: int) -> int | None:
        return None

    def input_over(self) -> None: ...

    def end(self) -> None: ...


NO_POLICY: CallPolicy = _NoPolicy()
