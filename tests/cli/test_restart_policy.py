"""How often a run is started again, without any process."""

from __future__ import annotations

import signal

import pytest

from loom.cli.exit_codes import Exit
from loom.cli.supervisor.restart_policy import RestartPolicy, end_of

FAILED = end_of(Exit.FAILED, broker=False)
KILLED = end_of(-signal.SIGKILL, broker=False)
NO_BROKER = end_of(Exit.ENVIRONMENT, broker=True)


@pytest.mark.parametrize("code", [Exit.DONE, Exit.USAGE, Exit.CONFIG, Exit.COMPILATION, Exit.REPLACED])
def test_an_end_that_no_restart_mends_is_final(code: Exit) -> None:
    assert end_of(code, broker=False).final


@pytest.mark.parametrize(
    "code",
    [Exit.FAILED, Exit.ENVIRONMENT, Exit.FORCED, Exit.RESTART, Exit.STALLED, 42, -signal.SIGSEGV, -signal.SIGABRT],
)
def test_an_end_of_its_own_counts(code: int) -> None:
    end = end_of(code, broker=False)
    assert (end.final, end.counts) == (False, True)


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, 130, 143])
def test_an_end_by_a_signal_from_outside_does_not_count(code: int) -> None:
    end = end_of(code, broker=False)
    assert (end.final, end.counts) == (False, False)


def test_a_broker_that_does_not_answer_does_not_count() -> None:
    assert (NO_BROKER.final, NO_BROKER.counts, NO_BROKER.code) == (False, False, Exit.ENVIRONMENT)


@pytest.mark.parametrize(("returncode", "code"), [(1, 1), (-11, 139), (-9, 137), (143, 143)])
def test_the_supervisor_ends_as_a_shell_would_tell_it(returncode: int, code: int) -> None:
    assert end_of(returncode, broker=False).code == code


def test_the_budget_is_spent_by_ends_without_progress() -> None:
    policy = RestartPolicy(2)
    policy.moved({"a[0]": 5})
    assert [policy.pause_after(FAILED, 1) for _ in range(3)] == [0.5, 1.0, None]
    assert policy.ends() == ["exit code 1"] * 3


def test_ends_that_do_not_count_never_spend_it_and_wait_ever_longer_up_to_a_bound() -> None:
    policy = RestartPolicy(0)
    pauses = [policy.pause_after(end, 1) for end in (KILLED, NO_BROKER) * 5]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert policy.left == 0


def test_a_run_that_lived_long_is_followed_by_the_next_one_soon() -> None:
    policy = RestartPolicy(9)
    assert [policy.pause_after(FAILED, lived) for lived in (1, 1, 31, 1)] == [0.5, 1, 0.5, 1]


def test_progress_renews_the_budget_and_the_pause() -> None:
    policy = RestartPolicy(1)
    policy.moved({"a[0]": 5, "a[1]": 0})
    assert policy.pause_after(FAILED, 1) == 0.5
    policy.moved({"a[1]": 1})
    assert policy.left == 1
    assert policy.pause_after(FAILED, 1) == 0.5
    assert policy.common() == {"a[0]": 5, "a[1]": 1}
    assert policy.pause_after(FAILED, 1) is None


@pytest.mark.parametrize(
    "positions", [{"a[0]": 5}, {"a[0]": 3}, {"b[0]": 7}, {}], ids=["the-same", "behind", "first-heard-of", "nothing"]
)
def test_where_a_run_begins_is_no_progress(positions: dict[str, int]) -> None:
    policy = RestartPolicy(0)
    policy.moved({"a[0]": 5})
    policy.moved(positions)
    assert policy.pause_after(FAILED, 1) is None


def test_catching_up_behind_a_position_that_went_back_is_no_progress() -> None:
    policy = RestartPolicy(0)
    for offset in (5, 3, 4, 5):
        policy.moved({"a[0]": offset})
    assert policy.pause_after(FAILED, 1) is None
    assert policy.common() == {"a[0]": 5}


def test_only_positions_that_all_ends_had_in_common_are_named() -> None:
    policy = RestartPolicy(2)
    for position in (7, 4, 2):
        policy.moved({"a[0]": 5, "a[1]": position})
        policy.pause_after(FAILED, 1)
    assert policy.common() == {"a[0]": 5}
