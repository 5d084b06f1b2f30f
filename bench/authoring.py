"""A flow as authors write it, in memory: ten steps, a three-way router, a fork, and a route for errors.

Against the same functions called from one plain loop. One order in a hundred is refused by the first step, so that
errors are worked on, too. Without the router the ten steps follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.authoring_steps import (
    check_address,
    check_channel,
    check_currency,
    check_identity,
    check_sum,
    in_app,
    in_store,
    on_the_web,
    size_of,
    where_sold,
)
from bench.contenders import AUTHORING
from bench.measure import CPU, RATE, RSS, Job, Sample, alone, cpu_and_rate
from bench.memory import run_in_memory
from bench.orders import decode, encode, make_orders, price, validate
from bench.result import Suite

REFUSED_EVERY = 100


def run_job(job: Job) -> Sample:
    """Called in the contender's own process."""
    values = [order.value for order in make_orders(job.records)]
    for number in range(0, job.records, REFUSED_EVERY):
        values[number] = encode(msgspec.structs.replace(decode(values[number]), quantity=0))
    return run_in_memory(AUTHORING[job.contender], values)


def routed(records: Sequence[bytes]) -> int:
    """The loop that one would write by hand."""
    large: list[bytes] = []
    small: list[bytes] = []
    errors: list[tuple[bytes, str, str]] = []
    for record in records:
        try:
            order = price(check_identity(check_channel(check_currency(validate(decode(record))))))
            sold = where_sold(order)
            if sold == "store":
                order = in_store(order)
            elif sold == "app":
                order = in_app(order)
            else:
                order = on_the_web(order)
            order = check_address(check_sum(order))
            (large if size_of(order) == "large" else small).append(encode(order))
        except Exception as error:  # noqa: BLE001 - a record that fails may not stop the others
            errors.append((record, type(error).__name__, str(error)))
    return len(large) + len(small) + len(errors)


def unrouted(records: Sequence[bytes]) -> int:
    """The same without the router."""
    large: list[bytes] = []
    small: list[bytes] = []
    errors: list[tuple[bytes, str, str]] = []
    for record in records:
        try:
            order = price(check_identity(check_channel(check_currency(validate(decode(record))))))
            order = check_address(check_sum(on_the_web(in_app(in_store(order)))))
            (large if size_of(order) == "large" else small).append(encode(order))
        except Exception as error:  # noqa: BLE001 - a record that fails may not stop the others
            errors.append((record, type(error).__name__, str(error)))
    return len(large) + len(small) + len(errors)


SUITE = Suite(
    name="authoring",
    title="In memory, as authors write it",
    contenders=AUTHORING,
    sample=Sample,
    figures=(CPU, RATE, RSS),
    ratios=(("cpu", "plain"), ("cpu", "plain_unrouted")),
    records=400_000,
    rounds=5,
    opened=alone("authoring"),
    summary=cpu_and_rate,
)
