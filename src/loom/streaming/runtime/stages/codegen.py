"""Code that is written for each plan: the fused loop, and one function for each node. Hot path.

A call of a Python function per node and record costs as much as a small step itself (`bench/README.md`), so the loop decodes a
record and runs every node that can be written into it. A node says once, by its *emitter*, what it does: the loop consists of
the emitters one after the other, and each emitter alone makes the function for records that have left the loop because they
are unusual (an unusual result, a record that a step gave other metadata, a tombstone).
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from textwrap import dedent
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.model import StepId
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.message import TOMBSTONE, Message
from loom.streaming.runtime.stages.failures import Fail
from loom.streaming.runtime.stages.node_input import Receive

__all__ = [
    "CodeWriter",
    "Emitter",
    "Generated",
    "Lap",
    "LoopWriter",
    "Watch",
    "WorkOnRecord",
    "build_function",
    "build_loop",
    "generated",
]

_numbers = count(1)
#: the prefix of the file names of generated code
_FILE = "<fused stage"
#: Python reads no more than a hundred levels of indentation; what is nested deeper stays outside the loop.
_DEEPEST = 60


class CodeWriter:
    """The body of a function that an emitter writes: the loop over a batch, or the function of one node.

    In the code, `origin` is the record as its source handed it over, and `code.payload` names the variable with its payload.
    An emitter that changes the payload puts it into a variable of its own, and names that in `code.payload`. Values get into
    the code by `name` only, never as text.

    >>> def emit(code):
    ...     priced = code.variable()
    ...     code.attempt(fail, f"{priced} = {code.name('price', price)}({code.payload})")
    ...     code.payload = priced
    """

    #: the metadata of the record here: an expression, `None` where it is the origin's own
    meta: str
    #: the statement that ends the work on the record
    done: str
    #: whether the next nodes are written here too; otherwise they are called
    fuses: bool
    #: whether what arrives is a tombstone
    tombstones = False
    #: writes that records come to a node, where the code says so; a function asks whether anybody wants to know
    lap: Lap | None = None
    #: the record is known to have no headers
    bare = False
    #: an expression for the headers that carry the trace of a record which came without any; `None` where none is followed
    traced: str | None = None

    def __init__(self, payload: str, indent: int) -> None:
        self._lines: list[str] = []
        self._indent = indent
        self._names: dict[str, Any] = {}
        self._variables = count()
        #: the variable that holds the payload here
        self.payload = payload
        #: the classes that this payload may be an instance of, exactly; empty where nothing is known
        self.classes: frozenset[type] = frozenset()
        #: a message that was made of a payload, by its variable and that of the payload
        self._message: tuple[str, str] | None = None
        #: no record gets past this place
        self.ended = False

    @property
    def deep(self) -> bool:
        """Whether nothing more should be nested here."""
        return self._indent >= _DEEPEST

    def name(self, prefix: str, value: Any) -> str:
        """Bind a value, and return the name that it has in the code.

        Args:
            prefix: how the name begins, for people who read the code.
            value: anything.
        """
        name = f"{prefix}_{len(self._names)}"
        self._names[name] = value
        return name

    def shared_name(self, prefix: str, value: Any) -> str:
        """Bind a value that is named in several places, and return the one name that it has in the code.

        Args:
            prefix: how the name begins; no other value is bound with it.
            value: anything.
        """
        known = next((name for name in self._names if name.startswith(f"{prefix}_")), None)
        return known or self.name(prefix, value)

    def variable(self) -> str:
        """A variable of its own."""
        return f"p{next(self._variables)}"

    def line(self, *lines: str) -> None:
        """Write lines at the current place."""
        self._lines += [f"{'    ' * self._indent}{line}" for line in lines]

    def comment(self, text: str) -> None:
        """Write a comment. Whatever an author has called something, it is one line of legal Python."""
        self.line(f"# {repr(text)[1:-1]}")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write an indented block, which begins with the payload that arrives here."""
        arriving = self.payload, self.classes, self._message
        self.line(head)
        self._indent += 1
        try:
            yield
        finally:
            self._indent -= 1
            self.payload, self.classes, self._message = arriving

    def attempt(self, fail: Fail, *lines: str) -> None:
        """Write lines that may raise.

        Args:
            fail: makes the record an error with what was raised; that ends the work on the record.
            lines: the statements.
        """
        failed = f"{self.name('fail', fail)}(error, {self.payload}, origin, {self.meta})"
        self.line(
            "try:",
            *(f"    {line}" for line in lines),
            "except BaseException as error:",
            *(f"    {line}" for line in self.ending(failed)),
        )

    def ending(self, *lines: str) -> list[str]:
        """Lines that hand the record to what may end the run, and end the work on it here."""
        return [*lines, self.done]

    def others(self) -> None:
        """Written before others are called, which may tell of nodes by themselves, or end the run."""

    def part(self, view: RecordAccessor, part: str) -> str:
        """An expression for a part of the record: what the view offers, else a call of its callable."""
        return view.expressions.get(part) or f"{self.name(part, getattr(view, part))}(origin)"

    def message(self, make: Callable[[Any, Any], Any]) -> str:
        """A variable that holds the message of the payload here; one that was made of the same payload serves again."""
        if self._message is not None and self._message[1] == self.payload:
            return self._message[0]
        made = f"m{next(self._variables)}"
        line = f"{self.name('message', make)}({self.payload}, origin)"
        if self._message is not None:
            line = f"{self._message[0]} if {self.payload} is {self._message[1]} else {line}"
        if self.meta != "None":
            line = f"{line} if {self.meta} is None else {self.name('Message', Message)}({self.payload}, {self.meta})"
        self.line(f"{made} = {line}")
        self._message = (made, self.payload)
        return made

    def of_batch(self, prefix: str, ask: Callable[[Sequence[Any]], Any]) -> str | None:
        """A variable with the result of a callable for the whole batch; `None` if there is no batch."""
        return None

    def call(self, take: Receive) -> None:
        """Hand the record to a function."""
        self.line(f"{self.name('take', take)}({self.payload}, origin, {self.meta})")

    def end(self) -> None:
        """End the work on the record."""
        self.line(self.done)
        self.ended = True

    def leave(self, take: Receive) -> None:
        """Hand the record to a function, and end the work on it here."""
        self.call(take)
        self.end()

    def compiled(self) -> Callable[..., Any]:
        """The function that was written."""
        raise NotImplementedError

    def _compiled(self, head: str, before: Sequence[str] = ()) -> Any:
        """The function, made inside one whose parameters are its names, since a closure's are looked up fastest."""
        body = [head, *before, *self._lines]
        indented = "".join(f"    {line}\n" for line in body)
        source = f"def make({', '.join(self._names)}):\n{indented}    return run\n"
        scope: dict[str, Any] = {}
        # Each function gets code of its own: the interpreter adapts it to what it is called with.
        exec(_copy_of(_code_of(source)), scope)
        return scope["make"](**self._names)


class Watch(NamedTuple):
    """Takes some records of a batch out of the hands of a loop.

    Args:
        first: returns the first of them, when a loop begins.
        work: does all that is to be done with one of them, and returns the next one; `None` after the last.
    """

    first: Callable[[], Any]
    work: Callable[[Any], Any]


class LoopWriter(CodeWriter):
    """The loop over one batch of records. Their metadata is still untouched; messages bring theirs along.

    Where an expression for the headers of a record is given, the loop ends before the first that has some, and returns it.
    """

    done, fuses = "continue", True

    def __init__(
        self, *, lap: Lap | None = None, watch: Watch | None = None, messages: bool = False, headers: str | None = None
    ) -> None:
        super().__init__("", indent=2)
        self.meta = "meta" if messages else "None"
        self.lap = lap
        #: by callable, the variable with its result for the batch; it is called once, before the loop
        self._of_batch: dict[Callable[[Sequence[Any]], Any], str] = {}
        self.payload = self.variable()
        if headers is not None:
            self.bare = True
            self.line(f"if {headers}:", "    return origin")
        #: what the function begins with
        self._before: list[str] = []
        if watch is not None:
            self._before = [f"    following = {self.name('first', watch.first)}()"]
            work = self.name("follow", watch.work)
            self.line("if origin is following:", f"    following = {work}(origin)", "    continue")

    def of_batch(self, prefix: str, ask: Callable[[Sequence[Any]], Any]) -> str:
        if ask not in self._of_batch:
            self._of_batch[ask] = f"{prefix}_of_batch_{len(self._of_batch)}"
        return self._of_batch[ask]

    def compiled(self) -> Callable[[Sequence[Any]], Any]:
        """The function that runs the loop over one batch of records."""
        asked = [f"    {name} = {self.name('ask', ask)}(origins)" for ask, name in self._of_batch.items()]
        made: Callable[[Sequence[Any]], Any] = self._compiled(
            "def run(origins):", [*asked, *self._before, "    for origin in origins:"]
        )
        return made


class FunctionWriter(CodeWriter):
    """The function of one node, which calls the next one."""

    meta, done, fuses = "meta", "return", False

    def __init__(self, *, tombstones: bool) -> None:
        super().__init__("payload", indent=1)
        self.tombstones = tombstones

    def compiled(self) -> Receive:
        """The function that takes a record."""
        made: Receive = self._compiled("def run(payload, origin, meta):")
        return made


#: (record, its headers with its trace if it came without any). Returns the nodes that it has come to, if its one result has these
#: headers and the times are among those of the timer; else `None`, and nodes and times are in the trail.
WorkOnRecord: TypeAlias = Callable[[Any, Any], tuple[str, ...] | None]
#: Writes that records come to a node.
Lap: TypeAlias = Callable[[CodeWriter, StepId], None]
#: Writes a node: takes the payload from `code.payload`, and leaves what it makes of it there, or ends.
Emitter: TypeAlias = Callable[[CodeWriter], None]


def build_function(emit: Emitter, after: Receive | None, *, tombstones: bool = False) -> Receive:
    """Make the function of a node, for records that are not in the loop.

    >>> def emit(code):
    ...     doubled = code.variable()
    ...     code.line(f"{doubled} = 2 * {code.payload}")
    ...     code.payload = doubled
    >>> taken = []
    >>> build_function(emit, lambda payload, origin, meta: taken.append(payload))(21, None, None)
    >>> taken
    [42]

    Args:
        emit: writes the node.
        after: called with what leaves the node; `None` for an emitter that always ends.
        tombstones: the function is for tombstones.

    Raises:
        ValueError: something leaves the node and `after` is `None`.
    """
    code = FunctionWriter(tombstones=tombstones)
    emit(code)
    if not code.ended:
        if after is None:
            raise ValueError("something leaves a node that nothing follows")
        code.leave(after)
    return code.compiled()


def build_loop(
    inside: Emitter,
    view: RecordAccessor,
    decode: Callable[[bytes], Any],
    classes: frozenset[type],
    without_value: Callable[[Any], None],
    undecoded: Callable[[BaseException, bytes, Any], None],
    code: CodeWriter,
    begin: StepId | None = None,
) -> Any:
    """What `code` writes, the loop over one batch of records or the work on one; `inside` writes what happens to each, of
    which `decode` makes a payload that is an instance of exactly one of `classes`; empty if unknown. Of the nodes that are
    told of, that of the source, `begin`, is the first.
    """
    if code.lap is not None and begin is not None:
        code.lap(code, begin)
    take_none = code.name("without_value", without_value)
    decoder, refuse = code.name("decode", decode), code.name("undecoded", undecoded)
    decoded = [
        f"value = {code.part(view, 'value')}",
        "if value is None:",
        *(f"    {line}" for line in code.ending(f"{take_none}(origin)")),
        "try:",
        f"    {code.payload} = {decoder}(value)",
        "except BaseException as error:",
        *(f"    {line}" for line in code.ending(f"{refuse}(error, value, origin)")),
    ]
    if view.may_be_messages:
        # `code.classes` stays empty: nothing tells of which class the payload of a message is.
        code.line(
            f"if isinstance(origin, {code.name('Message', Message)}):",
            f"    {code.payload} = origin.payload",
            f"    if {code.payload} is {code.name('TOMBSTONE', TOMBSTONE)}:",
            *(f"        {line}" for line in code.ending(f"{take_none}(origin)")),
            "    meta = origin.meta",
            "else:",
        )
        decoded = [f"    {line}" for line in [*decoded, "meta = None"]]
    else:
        code.classes = classes
    code.line(*decoded)
    inside(code)
    return code.compiled()


class Generated(LoomFrozenStruct):
    """A function that was written here: its text, and the values of the names in it."""

    source: str
    names: dict[str, Any]


def generated(function: Callable[..., Any] | None) -> Generated | None:
    """The text of a function that was written here; `None` for any other."""
    code = getattr(function, "__code__", None)
    if code is None or not code.co_filename.startswith(_FILE):
        return None
    cells = getattr(function, "__closure__", None) or ()
    lines = linecache.getlines(code.co_filename)[1:-1]  # without the function around it, which only gives it its names
    names = dict(zip(code.co_freevars, [cell.cell_contents for cell in cells], strict=True))
    written = re.findall(r"\b\w+_\d+\b", "".join(lines))
    return Generated(
        dedent("".join(lines)).rstrip(), {name: names[name] for name in dict.fromkeys(written) if name in names}
    )


@cache
def _code_of(source: str) -> CodeType:
    return compile(source, _file_of(source), "exec")


def _copy_of(code: CodeType) -> CodeType:
    """The same code, and the functions in it, as yet adapted to nothing."""
    return code.replace(co_consts=tuple(_copy_of(c) if isinstance(c, CodeType) else c for c in code.co_consts))


@cache
def _file_of(source: str) -> str:
    """The name of the file that a source would be; tracebacks through it show its lines."""
    file = f"{_FILE} {next(_numbers)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return file
