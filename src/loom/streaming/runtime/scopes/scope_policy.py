"""The policies of a scope in a stage: what its calls are asked before they begin and after they end, and who is told.

Made once per scope and stage; the rules themselves are in `call_rules.py`.
"""

from __future__ import annotations

from loom.core.logger import get_logger
from loom.streaming.compiler.exactly_once import longest_wait_ms
from loom.streaming.compiler.model import StepId
from loom.streaming.kafka.record_accessor import UnreadableHeadersError
from loom.streaming.nodes.retry import CircuitBreaker, RateLimit, Retry
from loom.streaming.runtime.scopes.call import Call
from loom.streaming.runtime.scopes.call_rules import CallRules
from loom.streaming.runtime.scopes.circuit_breaker import Breaker, BreakerState
from loom.streaming.runtime.scopes.rate_limit import TokenBucket
from loom.streaming.runtime.scopes.retry import RetrySchedule
from loom.streaming.runtime.stages.builder import StageBuilder
from loom.streaming.runtime.stages.failures import Attempts, NoBranchError, UndeclaredNoneError
from loom.streaming.runtime.stages.result_check import NotSeveralError, UndeclaredResultError, WrongCountError

__all__ = ["ScopePolicy"]

_log = get_logger(__name__)

#: what another call would not change, and what says nothing of the system that is called
_NEVER = (
    UnreadableHeadersError,
    NotSeveralError,
    WrongCountError,
    UndeclaredResultError,
    UndeclaredNoneError,
    NoBranchError,
)


class ScopePolicy:
    """Retry, rate limit and circuit breaker of one scope of one stage (`CallPolicy`)."""

    def __init__(
        self,
        build: StageBuilder,
        step_id: StepId,
        retry: Retry | None,
        rate_limit: RateLimit | None,
        circuit_breaker: CircuitBreaker | None,
    ) -> None:
        room = build.stage.room
        limit_ms = longest_wait_ms(build.plan) if build.plan.source.mode.transaction else None
        self._step_id = step_id
        self._counts = build.counts
        self._notice = build.notice_retry
        #: how many attempts were made for the call whose outcome leaves the scope
        self.attempts = Attempts()
        self._rules = CallRules(
            RetrySchedule(retry, lambda: room.random(), limit_ms) if retry is not None else None,  # noqa: PLW0108
            TokenBucket(rate_limit) if rate_limit is not None else None,
            Breaker(circuit_breaker) if circuit_breaker is not None else None,
            self._changed,
        )

    @property
    def is_paused(self) -> bool:
        """Whether the breaker keeps calls back."""
        return self._rules.is_paused

    def before(self, call: Call, now: float) -> float | None:
        return self._rules.before(call, now)

    def after(self, call: Call, now: float) -> float | None:
        errors = [error for error in call.errors if not isinstance(error, _NEVER)]
        again = self._rules.after(call, errors, now)
        if again is not None:
            self._counts.retries[self._step_id] += 1
            self._notice(self._step_id, errors[0], call.items[0][1], call.attempt)
        return again

    def leaving(self, call: Call) -> None:
        """What came of a call leaves the scope now."""
        self.attempts.made = max(self._rules.attempts(call), 1)

    def forget(self, call: Call, now: float) -> None:
        """A call has left the scope, or was discarded."""
        self._rules.forget(call, now)

    def credit(self, waiting: int) -> int | None:
        return self._rules.credit(waiting)

    def input_over(self) -> None:
        self._rules.input_over()

    def end(self) -> None:
        self._rules.end()

    def _changed(self, state: BreakerState) -> None:
        open_before = self._counts.open_circuits[self._step_id]
        self._counts.open_circuits[self._step_id] = int(state is not BreakerState.CLOSED)
        if state is BreakerState.CLOSED:
            _log.warning("circuit_closed", scope=self._step_id)
        elif not open_before:
            _log.error(
                "circuit_opened",
                scope=self._step_id,
                consequence="reading is paused; calls wait for a probe to succeed",
            )
