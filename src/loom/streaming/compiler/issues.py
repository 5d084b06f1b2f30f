"""Where the parts of the compiler collect what they find, so that everything is reported at once."""

from __future__ import annotations

from loom.core.config import ConfigError
from loom.streaming.compiler.catalogue import Code, Issue, Severity

__all__ = ["Issues"]


class Issues:
    """A growing list of issues; one that was noted already is not noted again."""

    def __init__(self) -> None:
        self.found: list[Issue] = []

    def error(
        self,
        code: Code,
        message: str,
        *,
        where: str = "process",
        path: tuple[int, ...] = (),
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        """Note something that stops the compilation."""
        self._add(Severity.ERROR, code, message, where, path, expected, found, remedy)

    def warn(
        self,
        code: Code,
        message: str,
        *,
        where: str = "process",
        path: tuple[int, ...] = (),
        expected: object = None,
        found: object = None,
        remedy: str | None = None,
    ) -> None:
        """Note something that the author should know."""
        self._add(Severity.WARNING, code, message, where, path, expected, found, remedy)

    def config(
        self, code: Code, error: ConfigError, *, subject: str = "", where: str = "config", path: tuple[int, ...] = ()
    ) -> None:
        """Note each problem of a config; `subject` is who wanted to read it."""
        for problem in error.problems:
            message = f"{problem.key}: {problem.message}" if problem.key else problem.message
            if subject:
                message = f"{subject}: {message}"
            if problem.file is not None:
                message += f" (in {problem.file})"
            meant = None if problem.nearest is None else f"did you mean {problem.nearest!r}?"
            remedy = " ".join(filter(None, (meant, problem.remedy))) or None
            self.error(code, message, where=where, path=path, remedy=remedy)

    @property
    def errors(self) -> tuple[Issue, ...]:
        """What stops the compilation."""
        return tuple(issue for issue in self.found if issue.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Issue, ...]:
        """What does not."""
        return tuple(issue for issue in self.found if issue.severity is Severity.WARNING)

    def _add(
        self,
        severity: Severity,
        code: Code,
        message: str,
        where: str,
        path: tuple[int, ...],
        expected: object,
        found: object,
        remedy: str | None,
    ) -> None:
        issue = Issue(
            code,
            severity,
            where,
            path,
            message,
            None if expected is None else str(expected),
            None if found is None else str(found),
            remedy,
        )
        # What two nodes share, such as a common config entry, is wrong once.
        if issue not in self.found:
            self.found.append(issue)
