"""Places are written as one would look them up, and a mistyped name is answered with the one that was meant."""

from __future__ import annotations

import string

from hypothesis import assume, given
from hypothesis import strategies as st

from loom.core.config.keys import nearest, render

NAMES = st.text(string.ascii_lowercase + "_", min_size=5, max_size=20)


def test_a_place_in_a_list_is_written_in_brackets() -> None:
    assert render(("kafka", "consumer", "brokers", 0)) == "kafka.consumer.brokers[0]"


def test_a_name_that_holds_dots_is_quoted() -> None:
    assert render(("kafka", "producers", "orders.priced", "topic")) == 'kafka.producers["orders.priced"].topic'


def test_case_and_dashes_are_not_held_against_a_name() -> None:
    assert nearest("A-B-C-D", ["a_b_c_d", "brokers"]) == "a_b_c_d"


def test_nothing_close_is_no_suggestion() -> None:
    assert nearest("zzz", ["group_id", "brokers"]) is None


@given(name=NAMES, others=st.lists(NAMES, max_size=5))
def test_an_exact_name_is_nearest_to_itself(name: str, others: list[str]) -> None:
    assert nearest(name, [*others, name]) == name


@given(name=NAMES, others=st.lists(NAMES, max_size=5), at=st.integers(0, 19), by=st.sampled_from("0123456789"))
def test_one_wrong_letter_is_always_answered_by_a_known_name(name: str, others: list[str], at: int, by: str) -> None:
    typo = name[: at % len(name)] + by + name[at % len(name) + 1 :]
    answer = nearest(typo, [*others, name])
    assert answer in [*others, name]
    assume(not others)
    assert answer == name
