"""Headers read as a mapping and are written as the pairs they came as."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.streaming.kafka import Headers

PAIRS = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.binary(max_size=3)))


@given(pairs=PAIRS)
def test_every_pair_is_kept_in_order(pairs: list[tuple[str, bytes | None]]) -> None:
    assert Headers(pairs).pairs == tuple(pairs)
    assert Headers(iter(pairs)) == Headers(pairs)
    assert Headers.of(Headers(pairs)).pairs == tuple(pairs)


@given(pairs=PAIRS)
def test_the_last_pair_of_a_name_wins(pairs: list[tuple[str, bytes | None]]) -> None:
    headers = Headers(pairs)
    assert dict(headers) == {name: value or b"" for name, value in pairs}
    assert len(headers) == len({name for name, _ in pairs})


def test_a_null_value_reads_as_no_bytes_and_stays_null() -> None:
    headers = Headers([("a", None)])
    assert (headers["a"], headers.get("b"), "a" in headers) == (b"", None, True)
    assert headers.pairs == (("a", None),)


def test_a_name_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Headers()["a"]


@pytest.mark.parametrize("written", [{"a": b"1"}, [("a", b"1")], Headers([("a", b"1")])])
def test_headers_may_be_written_in_several_forms(written: Any) -> None:
    assert Headers.of(written).pairs == (("a", b"1"),)


def test_headers_are_equal_when_their_pairs_are() -> None:
    one, other = Headers([("a", b"1"), ("b", b"2")]), Headers([("b", b"2"), ("a", b"1")])
    assert one != other
    assert one == Headers(one.pairs)
    assert hash(one) == hash(Headers(one.pairs))


def test_headers_equal_a_mapping_that_reads_the_same() -> None:
    assert Headers([("a", b"0"), ("a", b"1")]) == {"a": b"1"}
    assert Headers([("a", b"0")]) != {"a": b"1"}
    assert Headers([("a", b"0")]) != [("a", b"0")]


def test_replaced_names_give_way_to_new_pairs_at_the_end() -> None:
    headers = Headers([("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert headers.replaced(["a"], [("c", None), ("a", b"4")]).pairs == (("b", b"2"), ("c", None), ("a", b"4"))
    assert headers.pairs[0] == ("a", b"1")


def test_headers_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Headers([("a", b"1")])["a"] = b"2"  # type: ignore[index]


def test_headers_show_their_pairs() -> None:
    assert repr(Headers([("a", None)])) == "Headers([('a', None)])"
