"""The straight part of a stage, fused into one loop: decode, the leading steps, and the output where they reach it. Hot path.

A call of a Python closure per step and record costs as much as a small step itself (`bench/README.md`), so the loop is
written out for each plan, one block per step, and compiled once when the stage is built. Whatever is not the usual case (an
odd result, a header, an error) leaves the loop for the closures, which say what it means; the loop only ever does the same
faster.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

from loom.streaming.bytewax.stages.entry import Take
from loom.streaming.bytewax.stages.outcome import Result
from loom.streaming.bytewax.stages.outputs import QuietOutput
from loom.streaming.bytewax.stages.steps import SingleStep
from loom.streaming.kafka.view import OriginView
from loom.streaming.message import Message

__all__ = ["Straight", "build_loop"]


class Straight(NamedTuple):
    """What the loop can run by itself: leading steps, then an output, or else `behind` takes over."""

    steps: tuple[SingleStep, ...]
    behind: Take
    output: QuietOutput | None
    lazy_message: Callable[[Any, Any], Message[Any]]
    emit: Callable[[Result], None]


_HEAD = """\
def run(origins):
    for origin in origins:
        value = value_of(origin)
        if value is None:
            without_value(origin)
            continue
        try:
            p0 = decode(value)
        except Exception as error:
            undecoded(error, value, origin)
            continue
"""
_STEP = """\
        try:
            p{next} = call{at}({argument})
        except Exception as error:
            fail{at}(error, p{at}, origin, None)
            continue
        if p{next}.__class__ {is_odd}:
            odd{at}(p{next}, p{at}, origin, None)
            continue
"""
_BEHIND = """\
        behind(p{at}, origin, None)
"""
_OUTPUT = """\
        if headers_of(origin):
            behind(p{at}, origin, None)
            continue
        try:
            value = encode(p{at})
        except Exception as error:
            fail_output(error, p{at}, origin, None)
            continue
        emit((slot, value, key_of(origin), time_of(origin), None, origin))
"""

_numbers = count(1)


def build_loop(
    straight: Straight,
    view: OriginView,
    decode: Callable[[bytes], Any],
    without_value: Callable[[Any], None],
    undecoded: Callable[[Exception, bytes, Any], None],
) -> Callable[[Sequence[Any]], None]:
    """The loop over one batch of records."""
    names: dict[str, Any] = {
        "value_of": view.value,
        "decode": decode,
        "without_value": without_value,
        "undecoded": undecoded,
        "behind": straight.behind,
        "message": straight.lazy_message,
    }
    blocks = [_HEAD]
    for at, step in enumerate(straight.steps):
        names |= {f"call{at}": step.call, f"odd{at}": step.odd, f"fail{at}": step.fail}
        if len(step.plain) == 1:
            (names[f"class{at}"],) = step.plain
            is_odd = f"is not class{at}"
        else:
            names[f"classes{at}"] = step.plain
            is_odd = f"not in classes{at}"
        argument = f"message(p{at}, origin)" if step.takes_message else f"p{at}"
        blocks.append(_STEP.format(at=at, next=at + 1, argument=argument, is_odd=is_odd))
    last = len(straight.steps)
    if straight.output is None:
        blocks.append(_BEHIND.format(at=last))
    else:
        slot, names["encode"], names["fail_output"] = straight.output
        names |= {"key_of": view.key, "time_of": view.timestamp, "headers_of": view.headers, "emit": straight.emit}
        names["slot"] = slot
        blocks.append(_OUTPUT.format(at=last))
    return _compiled("".join(blocks), names)


def _compiled(loop: str, names: dict[str, Any]) -> Callable[[Sequence[Any]], None]:
    """Compile the loop inside a function whose parameters are its names, since a closure's are looked up fastest."""
    indented = "".join(f"    {line}\n" for line in loop.splitlines())
    source = f"def make({', '.join(names)}):\n{indented}    return run\n"
    file = f"<fused stage {next(_numbers)}>"
    # Tracebacks through the loop show its lines.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope: dict[str, Any] = {}
    exec(compile(source, file, "exec"), scope)
    made: Callable[[Sequence[Any]], None] = scope["make"](**names)
    return made
