"""What is wrong with a configuration, as data and as one readable error.

Raised by everything in this package and caught by the compiler and the CLI. No text here ever holds a config value,
since any value may be a secret: only keys, types and names.
"""

from __future__ import annotations

from collections.abc import Iterable

from loom.core.counted import counted
from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct

__all__ = ["ConfigError", "ConfigProblem"]


class ConfigProblem(LoomFrozenStruct):
    """One thing that is wrong, where it is, and how to fix it.

    >>> print(ConfigProblem("app.yaml", "kafka.brokerz", "unknown key", nearest="brokers").describe())
    kafka.brokerz: unknown key; did you mean `brokers`?

    Args:
        file: the file it is in; `None` for a mapping.
        key: the dotted key; empty for the file as a whole.
        message: what is wrong.
        nearest: the known name that was most likely meant.
        remedy: how to fix it.
    """

    #: The file that was read, None when the configuration came from a mapping.
    file: str | None
    #: The place in dotted notation, such as `kafka.consumer.brokers[0]`; empty for the file as a whole.
    key: str
    message: str
    #: The known name that comes closest to an unknown one.
    nearest: str | None = None
    remedy: str | None = None

    def describe(self) -> str:
        """The problem in one line, without the file."""
        text = f"{self.key}: {self.message}" if self.key else self.message
        if self.nearest is not None:
            text += f"; did you mean `{self.nearest}`?"
        if self.remedy is not None:
            text += f" ({self.remedy})"
        return text


class ConfigError(LoomError):
    """A configuration that cannot be used, with every problem that was found in it.

    >>> missing, unknown = ConfigProblem(None, "pricing.rate", "missing"), ConfigProblem(None, "pricing.rat", "unknown")
    >>> print(ConfigError([missing, unknown]))
    2 problems in the configuration:
      pricing.rate: missing
      pricing.rat: unknown

    Args:
        problems: every problem, in the order of the configuration.
    """

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems: tuple[ConfigProblem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        files = list(dict.fromkeys(problem.file or "the configuration" for problem in self.problems))
        count = len(self.problems)
        lines = [f"{counted(count, 'problem')} in {', '.join(files) or 'the configuration'}:"]
        lines += [f"  {problem.describe()}" for problem in self.problems]
        return "\n".join(lines)
