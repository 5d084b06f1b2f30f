"""What is written of spans is what a parser of OTLP reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from loom.core.observability.otlp.encoding import Envelope, SpanEncoder
from loom.core.observability.otlp.protobuf import attributes, padded_varint, varint
from loom.core.observability.spans import MOST_IN_RUN, FinishedSpan, SpanError, SpanRole, SpanRun, SpanShape
from loom.core.tracing import TraceParent

KINDS = {
    SpanRole.CONSUMER: Span.SPAN_KIND_CONSUMER,
    SpanRole.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanRole.INTERNAL: Span.SPAN_KIND_INTERNAL,
}
LONG = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(st.text(), st.booleans(), LONG, st.floats(allow_nan=False))
NAMES = st.text(min_size=1, max_size=20)
TIMES = st.integers(0, 1 << 61)


def ids(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, (1 << 4 * digits) - 1).map(lambda number: f"{number:0{digits}x}")


PLACES = st.builds(TraceParent, ids(32), ids(16))
ERRORS = st.builds(SpanError, st.text(), TIMES, st.one_of(st.just(""), NAMES), st.text(), st.text())
INNER = st.builds(SpanShape, NAMES, st.sampled_from(SpanRole), st.dictionaries(NAMES, VALUES, max_size=3))


@st.composite
def spans(draw: st.DrawFn) -> FinishedSpan:
    inside = draw(st.dictionaries(NAMES, INNER, min_size=1, max_size=4))
    varying = draw(st.dictionaries(NAMES, VALUES, max_size=3))
    shape = SpanShape(
        draw(NAMES),
        draw(st.sampled_from(SpanRole)),
        draw(st.dictionaries(NAMES, VALUES, max_size=5)),
        varying=tuple(varying),
        inside=inside,
    )
    names = st.sampled_from(sorted(inside))
    laps = draw(st.lists(st.tuples(names, TIMES), max_size=5))
    return FinishedSpan(
        shape,
        draw(PLACES),
        draw(TIMES),
        draw(TIMES),
        draw(TIMES),
        draw(st.none() | ids(16)),
        draw(st.none() | st.text(st.characters(max_codepoint=127))),
        tuple(varying.values()),
        tuple(name for name, _ in laps),
        [began for _, began in laps],
        draw(st.lists(PLACES, max_size=3)),
        draw(st.none() | ERRORS),
        draw(st.dictionaries(names, ERRORS, max_size=2)),
    )


def parsed(*written: FinishedSpan) -> list[Span]:
    encoder, into = SpanEncoder(), list[bytes | bytearray]()
    count = sum(encoder.write(span, into) for span in written)
    found = list(ScopeSpans.FromString(b"".join(into)).spans)
    assert len(found) == count
    return found


def value_of(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))


def pairs(found: Any) -> list[tuple[str, Any]]:
    return [(pair.key, value_of(pair.value)) for pair in found]


def check_failure(found: Span, error: SpanError | None, clock: int) -> list[tuple[str, Any]]:
    """Status and event of an error. Returns the attributes that come with it."""
    if error is None:
        assert not found.HasField("status")
        assert not found.events
        return []
    assert (found.status.code, found.status.message) == (Status.STATUS_CODE_ERROR, error.description)
    if not error.error_type:
        assert not found.events
        return []
    (event,) = found.events
    assert (event.name, event.time_unix_nano) == ("exception", error.at_ns + clock)
    assert pairs(event.attributes) == [
        ("exception.type", error.error_type.removeprefix("builtins.")),
        ("exception.message", error.message),
        ("exception.stacktrace", error.stacktrace),
        ("exception.escaped", "False"),
    ]
    return [("error.type", error.error_type)]


def check_outer(found: Span, span: FinishedSpan) -> None:
    shape, clock = span.shape, span.clock_ns
    assert (found.trace_id.hex(), found.span_id.hex()) == (span.place.trace_id, span.place.parent_id)
    assert found.parent_span_id.hex() == (span.parent_id or "")
    assert found.trace_state == (span.state or "")
    assert (found.name, found.kind) == (shape.name, KINDS[shape.role])
    assert found.start_time_unix_nano == span.begun_ns + clock
    assert found.end_time_unix_nano == span.ended_ns + clock
    assert found.flags == (0x101 if span.parent_id is None else 0x301)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in found.links] == [
        (link.trace_id, link.parent_id) for link in span.links
    ]
    about = [*shape.attributes.items(), *zip(shape.varying, span.values, strict=True)]
    assert pairs(found.attributes) == [*about, *check_failure(found, span.error, clock)]


def expected_inside(span: FinishedSpan) -> list[tuple[str, int, int, SpanError | None]]:
    """Name, begin, end and error of what is inside, in the order of its path."""
    failed = dict(span.inner_errors)
    ends = [*span.times, span.ended_ns][1:]
    on_path = [
        (name, began, end, failed.pop(name, None)) for name, began, end in zip(span.path, span.times, ends, strict=True)
    ]
    return on_path + [(name, span.ended_ns, span.ended_ns, error) for name, error in failed.items()]


@given(st.lists(spans(), min_size=1, max_size=3))
def test_what_is_written_is_what_a_parser_reads(written: list[FinishedSpan]) -> None:
    found = parsed(*written)
    for span in written:
        check_next(found, span)
    assert found == []


@st.composite
def runs(draw: st.DrawFn) -> list[FinishedSpan]:
    """Spans that differ in ids, times and their one value alone."""
    inside = draw(st.dictionaries(NAMES, INNER, min_size=1, max_size=3))
    shape = SpanShape(
        draw(NAMES), SpanRole.CONSUMER, draw(st.dictionaries(NAMES, VALUES)), varying=["v"], inside=inside
    )
    path = tuple(draw(st.lists(st.sampled_from(sorted(inside)), max_size=4)))
    places = draw(st.lists(PLACES, min_size=1, max_size=5, unique=True))
    continues = draw(st.booleans())
    found = []
    for place in places:
        *times, ended = draw(st.lists(TIMES, min_size=len(path) + 1, max_size=len(path) + 1))
        parent_id = draw(ids(16)) if continues else None
        values = (draw(st.integers(0, MOST_IN_RUN - 1)),)
        begun = times[0] if times else ended
        found.append(FinishedSpan(shape, place, begun, ended, 0, parent_id, None, values, path, times))
    return found


@given(st.lists(runs(), min_size=1, max_size=2))
def test_a_run_is_written_as_each_of_its_spans_would_be(written: list[list[FinishedSpan]]) -> None:
    encoder = SpanEncoder()
    for spans_of_run in written:
        first = spans_of_run[0]
        run = SpanRun(
            first.shape,
            first.path,
            bytes.fromhex("".join([span.place.trace_id + span.place.parent_id for span in spans_of_run])),
            [int(value) for span in spans_of_run for value in span.values],
            list(zip(*((*span.times, span.ended_ns) for span in spans_of_run), strict=True)),
            [span.parent_id for span in spans_of_run if span.parent_id is not None],
        )
        body, count, records = encoder.write_run(run)
        found = list(ScopeSpans.FromString(bytes(body)).spans)
        assert (len(found), len(spans_of_run)) == (count, records)
        for span in spans_of_run:
            check_next(found, span)
        assert found == []


def check_next(found: list[Span], span: FinishedSpan) -> None:
    """What was written next is a span with those inside of it."""
    check_outer(found.pop(0), span)
    expected = expected_inside(span)
    inside = [found.pop(0) for _ in expected]
    assert len({inner.span_id for inner in inside}) == len(inside)
    for inner, (name, began, ended, error) in zip(inside, expected, strict=True):
        shape = span.shape.inside[name]
        assert inner.trace_id.hex() == span.place.trace_id
        assert inner.parent_span_id.hex() == span.place.parent_id
        assert (inner.name, inner.kind, inner.flags) == (shape.name, KINDS[shape.role], 0x101)
        assert inner.start_time_unix_nano == began + span.clock_ns
        assert inner.end_time_unix_nano == ended + span.clock_ns
        failure = check_failure(inner, error, span.clock_ns)
        assert pairs(inner.attributes) == [*shape.attributes.items(), *failure]


NESTED = st.recursive(
    st.one_of(VALUES, st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


def plain(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [plain(each) for each in value.array_value.values]
    if value.HasField("kvlist_value"):
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return value_of(value)


@given(st.dictionaries(NAMES, NESTED, max_size=4), st.text(), NAMES, st.text(), st.text(), spans())
def test_a_request_says_who_sends_it(
    resource: dict[str, Any], schema: str, name: str, version: str, spans_schema: str, span: FinishedSpan
) -> None:
    into: list[bytes | bytearray] = []
    count = SpanEncoder().write(span, into)
    body = b"".join(Envelope(resource, schema, name, version, spans_schema).around(into))
    (sent,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {pair.key: plain(pair.value) for pair in sent.resource.attributes} == resource
    assert sent.schema_url == schema
    (scope,) = sent.scope_spans
    assert (scope.scope.name, scope.scope.version, scope.schema_url) == (name, version, spans_schema)
    assert len(scope.spans) == count


@pytest.mark.parametrize("bits", [0, 6, 7, 10, 11, 13, 14, 20, 21, 27, 28, 34, 35, 62, 63])
def test_whole_numbers_of_every_length(bits: int) -> None:
    for number in ((1 << bits) - 1, 1 << bits, -(1 << bits)):
        if -(1 << 63) <= number < 1 << 63:
            (pair,) = [KeyValue.FromString(attributes(1, {"n": number})[2:])]
            assert pair.value.int_value == number
    # As short as can be: no byte that says nothing.
    assert len(varint(1 << bits)) == bits // 7 + 1


@pytest.mark.parametrize("number", [0, 1, 127, 128, (1 << 35) - 1])
def test_a_number_that_takes_more_bytes_than_it_needs_is_read_all_the_same(number: int) -> None:
    for width in range(len(varint(number)), 11):
        padded = padded_varint(number, width)
        assert len(padded) == width
        assert AnyValue.FromString(b"\x18" + padded).int_value == number


def test_what_no_text_can_hold_is_written_all_the_same() -> None:
    (pair,) = [KeyValue.FromString(attributes(1, {"name": "a\ud800b"})[2:])]
    assert pair.value.string_value == "a?b"
