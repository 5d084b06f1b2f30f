"""What is done to flows that do more with their records than the plain one. Data only, as `faults`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from loom.streaming.failpoints import Failpoint
from tests.kafka.crash.books import FlowKind
from tests.kafka.crash.faults import KEEPS_ALL, PAST_IT_S, RANDOM_REPETITIONS, SHORT_MS, Act, Fault

__all__ = ["FLOW_FAULTS"]

_OTHER_FLOWS = {
    FlowKind.ROUTED: "a flow of routes, batches and branches",
    FlowKind.REMEMBERING: "a flow whose step remembers",
}


def _other_flows() -> Iterator[Fault]:
    """What tells most of a flow that does more with its records than the plain one."""
    for flow, words in _OTHER_FLOWS.items():
        for how in (signal.SIGKILL, signal.SIGTERM):
            yield Fault(f"{how.name} at random times, {words}", Act.SIGNAL, None, how, KEEPS_ALL, strikes=2, flow=flow)
            yield Fault(
                f"{how.name} of one of 2 members at random times, {words}",
                Act.STRIKE_MEMBER,
                None,
                how,
                KEEPS_ALL,
                strikes=2,
                members=2,
                flow=flow,
            )
        yield Fault(
            f"SIGKILL of one of several processes at random times, N changed, {words}",
            Act.STRIKE_ONE,
            deliveries=KEEPS_ALL,
            strikes=2,
            layouts=(2, 3, 1),
            flow=flow,
        )
        yield Fault(
            f"SIGSTOP of one of 2 members past its session and transaction, SIGCONT, {words}",
            Act.FREEZE_MEMBER,
            deliveries=KEEPS_ALL,
            members=2,
            away=PAST_IT_S,
            transaction_timeout_ms=SHORT_MS,
            flow=flow,
        )
        yield Fault(
            f"a member joins another and leaves, {words}",
            Act.JOIN_AND_LEAVE,
            deliveries=KEEPS_ALL,
            members=1,
            flow=flow,
        )


_CALLS = "async calls in flight"
_WAITING_FLOWS = {
    FlowKind.CALLING: _CALLS,
    FlowKind.RETRYING: "retries in flight",
    FlowKind.REPEATING: "async calls repeated",
}


def _waiting_flows() -> Iterator[Fault]:
    """What tells most of flows whose records wait."""
    for flow, words in _WAITING_FLOWS.items():
        for how in (signal.SIGKILL, signal.SIGTERM):
            yield Fault(
                f"{how.name} at random times, {words}",
                Act.SIGNAL,
                None,
                how,
                KEEPS_ALL,
                RANDOM_REPETITIONS,
                strikes=2,
                flow=flow,
            )
        yield Fault(
            f"SIGSTOP past the transaction time-out, {words}, SIGCONT",
            Act.FREEZE,
            deliveries=KEEPS_ALL,
            repetitions=RANDOM_REPETITIONS,
            away=PAST_IT_S,
            transaction_timeout_ms=SHORT_MS,
            flow=flow,
        )
        yield Fault(
            f"a member joins another and leaves, {words}",
            Act.JOIN_AND_LEAVE,
            deliveries=KEEPS_ALL,
            members=1,
            flow=flow,
        )
    for how in (signal.SIGKILL, signal.SIGTERM):
        yield Fault(
            f"{how.name} of one of 2 members at random times, {_CALLS}",
            Act.STRIKE_MEMBER,
            None,
            how,
            KEEPS_ALL,
            RANDOM_REPETITIONS,
            strikes=2,
            members=2,
            flow=FlowKind.CALLING,
        )
        yield Fault(
            f"{how.name} of a member whose partitions are revoked, {_CALLS}",
            Act.STRIKE_WHILE_REVOKING,
            Failpoint.REVOKING,
            how,
            KEEPS_ALL,
            members=1,
            flow=FlowKind.CALLING,
        )
    yield Fault(
        f"SIGSTOP of one of 2 members past its session and transaction, SIGCONT, {_CALLS}",
        Act.FREEZE_MEMBER,
        deliveries=KEEPS_ALL,
        members=2,
        away=PAST_IT_S,
        transaction_timeout_ms=SHORT_MS,
        flow=FlowKind.CALLING,
    )


FLOW_FAULTS: tuple[Fault, ...] = (*_other_flows(), *_waiting_flows())
