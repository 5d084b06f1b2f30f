"""The fused loop: decode, then every node that can be written out as code, in one function. Hot path.

A call of a Python closure per node and record costs as much as a small step itself (`bench/README.md`), so the loop is
written out for each plan and compiled once when the stage is built. A node that is not written out, and whatever is not the
usual case (an odd result, a header, an error), leaves the loop for the closures, which say what it means; the loop only
ever does the same faster.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeAlias

from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.runtime.stages.node_input import Receive

__all__ = ["Inline", "LoopWriter", "build_loop"]

_numbers = count(1)
#: Python reads no more than a hundred levels of indentation; what is nested deeper stays with the closures.
_DEEPEST = 60


class LoopWriter:
    """A loop body that is being written. The record is `origin`; its metadata is still untouched."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._indent = 2
        self._names: dict[str, Any] = {}
        #: by callable, the variable that holds what it says of the batch
        self._of_batch: dict[Callable[[Sequence[Any]], Any], str] = {}
        self._variables = count()
        #: the variable that holds the payload here
        self.payload = ""
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
        """A name in the code for something that the loop uses."""
        name = f"{prefix}_{len(self._names)}"
        self._names[name] = value
        return name

    def once(self, prefix: str, ask: Callable[[Sequence[Any]], Any]) -> str:
        """A variable that holds what a callable says of the whole batch; it is asked once, before the loop."""
        if ask not in self._of_batch:
            self._of_batch[ask] = f"{prefix}_of_batch_{len(self._of_batch)}"
        return self._of_batch[ask]

    def variable(self) -> str:
        """A variable of its own."""
        return f"p{next(self._variables)}"

    def line(self, *lines: str) -> None:
        """Write lines at the place at hand."""
        self._lines += [f"{'    ' * self._indent}{line}" for line in lines]

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
        self.line(f"{made} = {line}")
        self._message = (made, self.payload)
        return made

    def leave(self, take: Receive) -> None:
        """Hand the record to a closure, and go on with the next one."""
        self.line(f"{self.name('take', take)}({self.payload}, origin, None)", "continue")
        self.ended = True

    def compiled(self) -> Callable[[Sequence[Any]], None]:
        """The function that runs the loop over one batch of records.

        It is compiled inside a function whose parameters are its names, since a closure's are looked up fastest.
        """
        asked = [f"    {name} = {self.name('ask', ask)}(origins)" for ask, name in self._of_batch.items()]
        body = ["def run(origins):", *asked, "    for origin in origins:", *self._lines]
        indented = "".join(f"    {line}\n" for line in body)
        source = f"def make({', '.join(self._names)}):\n{indented}    return run\n"
        file = f"<fused stage {next(_numbers)}>"
        # Tracebacks through the loop show its lines.
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        scope: dict[str, Any] = {}
        exec(compile(source, file, "exec"), scope)
        made: Callable[[Sequence[Any]], None] = scope["make"](**self._names)
        return made


#: writes a node into the loop: takes the payload from `code.payload`, leaves what it makes there, or ends
Inline: TypeAlias = Callable[[LoopWriter], None]


def build_loop(
    inside: Inline,
    view: RecordAccessor,
    decode: Callable[[bytes], Any],
    payload: Any,
    without_value: Callable[[Any], None],
    undecoded: Callable[[BaseException, bytes, Any], None],
) -> Callable[[Sequence[Any]], None]:
    """The loop over one batch of records; `inside` writes what becomes of each, of which `decode` makes a `payload`."""
    code = LoopWriter()
    take_none = code.name("without_value", without_value)
    decoder, refuse = code.name("decode", decode), code.name("undecoded", undecoded)
    code.payload = code.variable()
    if isinstance(payload, type) and issubclass(payload, (LoomStruct, LoomFrozenStruct)):
        code.classes = frozenset({payload})
    code.line(
        f"value = {code.part(view, 'value')}",
        "if value is None:",
        f"    {take_none}(origin)",
        "    continue",
        "try:",
        f"    {code.payload} = {decoder}(value)",
        "except BaseException as error:",
        f"    {refuse}(error, value, origin)",
        "    continue",
    )
    inside(code)
    return code.compiled()
