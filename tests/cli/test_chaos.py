"""`loom demo --chaos`: kills a real process, and its books tell what is lost and doubled. On a real broker in `tests/kafka`."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from loom.cli.chaos.books import NUMBER, Balance, Books, Result, expected_results, numbered
from loom.cli.chaos.screen import close_books
from loom.cli.exit_codes import Exit
from loom.core.errors import LoomError
from loom.examples.flights.data import raw_flights
from loom.examples.flights.flow import flow
from loom.streaming.headers import Headers
from loom.streaming.record import KafkaRecord
from tests.cli.conftest import Loom
from tests.support.waiting import LONG_S


def record(number: bytes) -> KafkaRecord:
    return KafkaRecord("out", None, b"{}", Headers([(NUMBER, number)]))


def test_the_flow_is_killed_and_nothing_is_lost(loom: Loom) -> None:
    told = loom("demo", "--chaos", "--kills", "1", "--records", "200", timeout=LONG_S)
    assert told.code == Exit.DONE, told.out + told.err
    assert "SIGKILL 1: in " in told.out
    assert re.search(r"the books balance: 1 kills?, 0 lost, \d+ doubled", told.out)
    (row,) = re.findall(r"│ +1 │ +([\d,]+) │ +([\d,]+) │ +([\d,]+) │ +[\d,]+ │", told.out)
    assert row[0] == "200"
    assert int(row[1]) > 200
    assert row[2] == "0"


def test_what_must_be_there_is_what_the_flow_writes_in_memory() -> None:
    topics = ("flights.newark", "flights.kennedy", "flights.laguardia", "flights.undecodable", "flights.rejected")
    records = numbered("flights.raw", raw_flights(3000))
    found = expected_results(flow, {"delays": {"late_after": 15}}, records, topics)
    by_topic = {topic: [one for one in found if one.topic == topic] for topic in topics}
    assert all(by_topic.values())
    assert {found[one] for one in by_topic["flights.newark"]} == {2}, "a take-off and a landing"
    # A flight ends in one topic, or it is a shuttle that is dropped.
    assert len({one.number for one in found}) == len(found) < 3000


def test_the_books_tell_what_is_missing_and_what_is_doubled() -> None:
    books = Books({Result("out", b"0"): 2, Result("out", b"1"): 1})
    assert books.balance() == Balance(0, 0, 0, 0, 0)
    books.sent(b"0")
    books.sent(b"7")  # is dropped: nothing is expected of it
    assert books.balance() == Balance(2, 0, 2, 0, 0)
    for number in (b"0", b"0", b"0", b"9"):
        books.found("out", record(number))
    assert books.balance() == Balance(2, 4, 0, 1, 1)
    books.sent(b"1")
    assert not books.balance().complete


@pytest.mark.parametrize(
    ("found", "delivery", "balance"),
    [
        (Balance(9, 9, 0, 0, 0), "exactly_once", True),
        (Balance(9, 12, 0, 3, 0), "at_least_once", True),
        (Balance(9, 12, 0, 3, 0), "exactly_once", False),
        (Balance(9, 8, 1, 0, 0), "at_least_once", False),
        (Balance(9, 10, 0, 0, 1), "at_least_once", False),
    ],
)
def test_books_that_do_not_balance_are_an_error(found: Balance, delivery: str, balance: bool) -> None:
    console = Console(quiet=True)
    if balance:
        close_books(found, delivery, 3, console, 1.0)
        return
    with pytest.raises(LoomError, match="the books do not balance"):
        close_books(found, delivery, 3, console, 1.0)


@pytest.mark.parametrize("option", [("--kills", "3"), ("--brokers", "localhost:9092")])
def test_options_of_chaos_without_it_are_refused(loom: Loom, option: tuple[str, str]) -> None:
    told = loom("demo", *option)
    assert told.code == Exit.USAGE
    assert told.messages == [f"{option[0]} needs --chaos"]
