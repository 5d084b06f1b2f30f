"""Sums the results up for docs/delivery.md: what was lost, repeated and ended, by where the faults are; with date and commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.kafka.crash.broker_acts import BrokerAct, NetworkAct
from tests.kafka.crash.broker_faults import ALL_FAULTS
from tests.kafka.crash.faults import MODES_CHANGE, Act, Delivery, Fault
from tests.kafka.crash.results import Result

_OF_THE_BROKER = frozenset({Act.KILL_BROKER, Act.PAUSE_BROKER, Act.FILL_DISK, Act.CUT, Act.SILENCE, Act.DEAFEN})
#: in the order of the rows
_PLACES = (
    "one process: killed, stopped, frozen, started twice",
    "several processes, fixed assignment: the same, and their number changed",
    "members of a group: the same, joining and leaving, and a change of the mode",
    "one broker: killed, paused, its disk full, its connections cut",
    "three brokers: one killed or paused, all restarted one after the other",
    "a host of its own for each process: cut off in one direction or both",
)


def render_summary(results: Iterable[Result]) -> str:
    """A row for each place where faults are, and in it only the guarantees that promise something."""
    by_name = {fault.name: fault for fault in ALL_FAULTS}
    by_place: dict[str, list[Result]] = {place: [] for place in _PLACES}
    for result in results:
        fault = by_name.get(result.fault)
        if fault is not None and not result.figures and result.impossible is None:
            by_place[_place(fault)].append(result)
    columns = (
        "where",
        "runs",
        "lost, `at_least_once`",
        "lost, `exactly_once`",
        "doubled, `exactly_once`",
        "ended by us",
        "longest stall",
        "measured",
    )
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join(lines + [_row(place, found) for place, found in by_place.items() if found])


def _place(fault: Fault) -> str:
    if isinstance(fault.act, NetworkAct):
        return _PLACES[5]
    if isinstance(fault.act, BrokerAct):
        return _PLACES[4]
    if fault.act in _OF_THE_BROKER:
        return _PLACES[3]
    if fault.members or fault.grouped or fault.act in MODES_CHANGE:
        return _PLACES[2]
    return _PLACES[1] if fault.layouts else _PLACES[0]


def _row(place: str, results: Sequence[Result]) -> str:
    at_least = [result for result in results if result.delivery == Delivery.AT_LEAST_ONCE]
    exactly = [result for result in results if result.delivery == Delivery.EXACTLY_ONCE]
    stalls = [result.longest_stall for result in results if result.longest_stall is not None]
    ended = str(sum(result.members_ended for result in results)) if stalls else "-"
    days = sorted({result.date[:10] for result in results})
    commits = list(dict.fromkeys(result.commit[:7] for result in sorted(results, key=lambda found: found.date)))
    when = " to ".join(dict.fromkeys((days[0], days[-1])))
    counts = (
        len(at_least) + len(exactly),
        sum(result.lost for result in at_least),
        sum(result.lost for result in exactly),
        sum(result.duplicated for result in exactly),
    )
    stall = f"{max(stalls):.1f} s" if stalls else "-"
    told = [place, *(f"{count:,}" for count in counts), ended, stall, f"{when}: {', '.join(commits)}"]
    return f"| {' | '.join(told)} |"
