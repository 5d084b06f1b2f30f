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

    def before(self, call: Call, now: float) -> float | None:
        """A call is about to start.

        Returns:
            `None` to start it, else the time, in seconds of the worker's clock, before which no call of the scope starts.
        """

    def after(self, call: Call, now: float) -> float | None:
        """An attempt (`call.attempt`, from 1 on) is done; `call.outcome.errors` holds what its steps raised.

        May change the outcome, for example to note in an error how many attempts there were.

        Returns:
            `None` where the outcome is final, else the time at which the call is repeated from its beginning.
        """


class _NoPolicy:
    """Every call starts at once, and once."""

    def before(self, call: Call, now: float) -> float | None:
        return None

    def after(self, call: Call, now: float) -> float | None:
        return None


NO_POLICY: CallPolicy = _NoPolicy()
