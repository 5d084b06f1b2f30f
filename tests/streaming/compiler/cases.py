"""One mistake and what the compiler says of it: the rows of the tables in `test_catalogue*.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

from loom.streaming import StreamFlow, compile_flow
from loom.streaming.compiler import Code, CompilationError, Issue, Severity

__all__ = ["Case", "issues"]

WARNINGS = {
    Code.CONFIG_UNREAD,
    Code.ERRORS_UNROUTED,
    Code.PAYLOAD_SHARED,
    Code.SCOPE_ORDERING,
    Code.STEP_MEMORY,
    Code.STEP_UNTYPED,
}


class Case(NamedTuple):
    """One mistake and the one issue that it makes."""

    code: Code
    flow: StreamFlow[Any, Any]
    config: dict[str, Any]
    where: str
    path: tuple[int, ...]
    #: what the message and the remedy must name
    message: str
    remedy: str
    expected: str = ""
    found: str = ""

    def label(self) -> str:
        return f"{self.code.value}-{self.message[:40]}"

    def check(self) -> None:
        """Compile the flow: this issue, and no other."""
        (issue,) = issues(self.flow, self.config)
        assert issue.code is self.code
        assert issue.severity is (Severity.WARNING if self.code in WARNINGS else Severity.ERROR)
        assert (issue.where, issue.path) == (self.where, self.path)
        assert self.message in issue.message
        assert self.remedy in (issue.remedy or "")
        assert self.expected in (issue.expected or "")
        assert self.found in (issue.found or "")


def issues(declared: StreamFlow[Any, Any], settings: dict[str, Any]) -> tuple[Issue, ...]:
    try:
        return compile_flow(declared, config=settings).warnings
    except CompilationError as error:
        return error.errors
