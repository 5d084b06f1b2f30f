"""A traceparent is read strictly, written as version 00, and continued by a new span."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loom.core.tracing import (
    TraceParent,
    child,
    format_traceparent,
    new_place,
    new_span_bytes,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

HEX = "0123456789abcdef"
PARENTS = st.builds(
    TraceParent,
    st.text(HEX, min_size=32, max_size=32).filter(lambda text: text.strip("0")),
    st.text(HEX, min_size=16, max_size=16).filter(lambda text: text.strip("0")),
    st.integers(0, 3),
)


@given(PARENTS)
def test_what_is_written_is_read_back(parent: TraceParent) -> None:
    text = format_traceparent(parent)
    assert parse_traceparent(text) == parent
    assert parse_traceparent(text.encode()) == parent


@given(PARENTS, st.integers(0, 54), st.characters())
def test_a_changed_character_is_noticed_or_read_as_what_it_says(parent: TraceParent, at: int, by: str) -> None:
    text = format_traceparent(parent)
    changed = text[:at] + by + text[at + 1 :]
    assume(changed != text and at >= 2)
    read = parse_traceparent(changed)
    assert read is None or (read != parent and format_traceparent(read) == changed) or at >= 53


@given(st.one_of(st.text(), st.binary()))
def test_anything_else_is_none_and_never_an_error(value: str | bytes) -> None:
    assert parse_traceparent(value) is None


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"0g-{TRACE}-{SPAN}-01",
    ],
)
def test_a_malformed_header_is_none(value: str) -> None:
    assert parse_traceparent(value) is None
    assert parse_traceparent(value.encode()) is None


@pytest.mark.parametrize("tail", ["", "-", "-what-ever"])
def test_a_later_version_may_be_longer_and_is_passed_on_as_our_own(tail: str) -> None:
    read = parse_traceparent(f"cc-{TRACE}-{SPAN}-03{tail}")
    assert read == TraceParent(TRACE, SPAN, 1)
    assert format_traceparent(read) == f"00-{TRACE}-{SPAN}-01"


def test_flags_without_a_meaning_are_not_passed_on() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-ff") == TraceParent(TRACE, SPAN, 3)
    assert format_traceparent(TraceParent(TRACE, SPAN, 0xFD)).endswith("-01")


def test_the_sampled_bit_can_be_asked_for() -> None:
    assert TraceParent(TRACE, SPAN, 1).sampled
    assert not TraceParent(TRACE, SPAN, 2).sampled


def test_a_child_stays_in_the_trace_under_a_new_span() -> None:
    parent = TraceParent(TRACE, SPAN, 2)
    continued = child(parent)
    assert (continued.trace_id, continued.flags) == (TRACE, 2)
    assert continued.parent_id != SPAN
    assert parse_traceparent(format_traceparent(continued)) == continued


def test_new_ids_are_valid_and_differ() -> None:
    ids = {(new_trace_id(), new_span_id()) for _ in range(100)}
    assert len(ids) == 100
    assert all(parse_traceparent(f"00-{trace}-{span}-00") for trace, span in ids)


def test_a_new_span_is_sampled_and_stays_in_the_trace_of_its_parent() -> None:
    assert new_place(TraceParent(TRACE, SPAN, 2)).trace_id == TRACE
    assert new_place(TraceParent(TRACE, SPAN, 2)).flags == 3
    first, second = new_place(), new_place()
    assert first.trace_id != second.trace_id
    assert parse_traceparent(format_traceparent(first)) == first


def test_ids_do_not_follow_the_generator_that_anyone_may_seed() -> None:
    drawn = set()
    for _ in range(2):
        random.seed(7)
        drawn |= {new_place().trace_id, new_span_bytes(2).hex()}
    assert len(drawn) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_forked_processes_draw_different_ids() -> None:
    read, write = os.pipe()
    for _ in range(2):
        if (process := os.fork()) == 0:
            os.write(write, new_trace_id().encode())
            os._exit(0)
        os.waitpid(process, 0)
    ids = os.read(read, 64).decode()
    assert len({ids[:32], ids[32:], new_trace_id()}) == 3
