"""A scope that is started and stopped again and again leaves no task, no thread and no descriptor behind."""

from __future__ import annotations

from bench.scope_cycles import cycles


def test_nothing_is_left_of_a_scope_that_was_stopped() -> None:
    warm, *others = cycles(60, every=20)[1:]
    for left in others:
        assert (left.tasks, left.threads, left.descriptors) == (warm.tasks, warm.threads, warm.descriptors)
