"""A fork is declared by a selector and its branches, in their order."""

from __future__ import annotations

import pytest

from loom.streaming import Fork, IntoTopic, Message, Process, Selector
from tests.streaming.orders import Order, by_country

SPAIN, REST = Process(IntoTopic("orders.es")), Process(IntoTopic("orders.rest"))


class ByKey:
    def select(self, message: Message[Order]) -> bytes | str | None:
        return message.meta.key


def test_branches_keep_the_order_in_which_they_are_written() -> None:
    fork = Fork.by(by_country, {"PT": REST, "ES": SPAIN}, default=REST)
    assert [(branch.key, branch.process) for branch in fork.branches] == [("PT", REST), ("ES", SPAIN)]
    assert (fork.selector, fork.default) == (by_country, REST)


def test_a_default_is_a_choice() -> None:
    assert Fork.by(by_country, {"ES": SPAIN}).default is None


def test_a_fork_without_branches_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one branch"):
        Fork.by(by_country, {}, default=REST)


def test_an_object_with_select_is_a_selector() -> None:
    assert isinstance(ByKey(), Selector)
    assert not isinstance(by_country, Selector)
