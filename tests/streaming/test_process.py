"""A process is its nodes, in order."""

from __future__ import annotations

import pytest

from loom.streaming import Process
from tests.streaming.orders import Price, price, validate


def test_a_process_is_a_sequence_of_its_nodes() -> None:
    process = Process(validate, Price)
    assert list(process) == [validate, Price]
    assert process.nodes == (validate, Price)
    assert len(process) == 2


def test_an_empty_process_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one node"):
        Process()


def test_processes_compare_by_their_nodes() -> None:
    assert Process(validate, price) == Process(validate, price)
    assert hash(Process(validate, price)) == hash(Process(validate, price))
    assert Process(validate, price) != Process(price, validate)
    assert Process(validate) != (validate,)


def test_a_process_shows_its_nodes() -> None:
    assert repr(Process(validate, price)) == "Process(step(validate), step(price))"
