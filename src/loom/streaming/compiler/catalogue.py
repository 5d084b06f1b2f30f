"""Every problem the compiler can find: its code, what it means, and the error that carries them all.

Codes are a contract: tools and tests match on them. Texts may improve.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from loom.core.counted import counted
from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import LoomStreamingError

__all__ = ["Code", "CompilationError", "Issue", "Severity"]


class Severity(StrEnum):
    """Whether an issue stops the compilation.

    >>> list(Severity)
    [<Severity.ERROR: 'error'>, <Severity.WARNING: 'warning'>]
    """

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """What kind of problem an issue is. Codes are stable; messages may change.

    >>> Code("no-end")
    <Code.NO_END: 'no-end'>
    """

    CONFIG_MISSING = "config-missing"  #: a section that the flow needs is not in the config
    CONFIG_INVALID = "config-invalid"  #: a section does not fit its type
    CONFIG_UNREAD = "config-unread"  #: a top-level section that nothing reads (warning)
    STEP_ARGUMENTS = "step-arguments"  #: a step cannot be constructed from what was given
    STEP_SIGNATURE = "step-signature"  #: a step whose `execute` cannot be called with a message
    STEP_ASYNC = "step-async"  #: an `async def` step outside an async scope
    STEP_UNTYPED = "step-untyped"  #: a step without a return annotation, so nothing checks it (warning)
    STEP_MEMORY = "step-memory"  #: an instance that cannot forget what an aborted transaction held (warning)
    STEP_DEPENDENCY = "step-dependency"  #: a step asks for a dependency that nothing provides
    SCOPE_DEPENDENCY = "scope-dependency"  #: a scope's dependency that no step takes, or that the scope cannot open
    SCOPE_NODE = "scope-node"  #: a node that cannot be inside a scope
    SCOPE_ORDERING = "scope-ordering"  #: an ordering that the delivery guarantee overrides (warning)
    NODE_UNKNOWN = "node-unknown"  #: something in a process that is no node
    NOT_SUPPORTED = "not-supported"  #: a declared option whose feature is not built yet
    SHAPE_MISMATCH = "shape-mismatch"  #: a node receives a shape that it does not take
    TYPE_MISMATCH = "type-mismatch"  #: a node receives a payload type that it does not take
    EXPRESSION_FIELD = "expression-field"  #: an expression asks for a field that a payload does not have
    PAYLOAD_SHARED = "payload-shared"  #: branches share a payload that is not frozen (warning)
    PAYLOAD_INVALID = "payload-invalid"  #: a payload type that cannot be read or written
    BEHIND_TERMINAL = "behind-terminal"  #: a node after one that ends the stream
    NO_END = "no-end"  #: records would fall off the end of a flow or branch
    TWO_ENDS = "two-ends"  #: an output after a process that has already ended
    NAME_INVALID = "name-invalid"  #: a name that is empty, or that Kafka does not take for a topic
    NAME_TWICE = "name-twice"  #: two nodes with one step id
    TOPIC_LOOP = "topic-loop"  #: a flow that writes to its own source topic, or a replay in a circle (warning)
    TOPIC_SHARED = "topic-shared"  #: a common producer topic that several outputs would fall back to
    DELIVERY_CONFLICT = "delivery-conflict"  #: delivery and auto-commit contradict each other
    DELIVERY_UNKEPT = "delivery-unkept"  #: a guarantee that the sinks or settings of the flow cannot keep
    ERRORS_UNROUTED = "errors-unrouted"  #: error kinds without a route (warning)


class Issue(LoomFrozenStruct):
    """One problem: where it is, what was expected, what was found, and how to fix it.

    >>> print(Issue(Code.NO_END, Severity.ERROR, "process", (1,), "records end nowhere", remedy="give the flow an output"))
    error no-end at process[1]: records end nowhere
        help:     give the flow an output

    Args:
        code: the kind of problem.
        severity: whether it stops the compilation.
        where: the place in words: `process`, `source`, `output`, `errors` or `config`.
        path: the address of the node, empty for anything outside the process.
        message: what is wrong.
        expected: what should be there.
        found: what is there.
        remedy: how to fix it; printed as `help`.
    """

    code: Code
    severity: Severity
    where: str
    path: tuple[int, ...]
    message: str
    expected: str | None = None
    found: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}{list(self.path)}" if self.path else self.where
        lines = [f"{self.severity.value} {self.code.value} at {place}: {self.message}"]
        if self.expected is not None:
            lines.append(f"    expected: {self.expected}")
        if self.found is not None:
            lines.append(f"    found:    {self.found}")
        if self.remedy is not None:
            lines.append(f"    help:     {self.remedy}")
        return "\n".join(lines)


class CompilationError(LoomStreamingError):
    """Everything that is wrong with a flow, at once.

    >>> try:
    ...     compiled(Price)
    ... except CompilationError as error:
    ...     [issue.code.value for issue in error.errors]
    ['no-end']

    Args:
        flow: the name of the flow.
        errors: the issues, in the order of the flow.
    """

    def __init__(self, flow: str, errors: Iterable[Issue]) -> None:
        self.flow = flow
        self.errors = tuple(errors)
        count = counted(len(self.errors), "problem")
        super().__init__("\n".join([f"flow {flow!r} does not compile: {count}", *map(str, self.errors)]))
