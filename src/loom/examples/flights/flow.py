"""Flights that left New York, from raw records to departures and arrivals by airport: the flow behind `loom demo`.

Every kind of outcome is in it: results, expansion into several, an intended drop, errors of the domain, bytes that do not
decode. Run it on a Kafka of your own with `loom run loom.examples.flights.flow:flow --config config.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)


class Flight(LoomFrozenStruct):
    """One flight as it was recorded. Times are local as HHMM, delays in minutes, `None` where nothing was recorded."""

    carrier: str
    flight: int
    origin: str
    dest: str
    distance: int
    sched_dep_time: int
    sched_arr_time: int
    time_hour: str
    dep_time: int | None = None
    arr_time: int | None = None
    dep_delay: int | None = None
    arr_delay: int | None = None
    tailnum: str | None = None


class Punctuality(LoomFrozenStruct):
    """How a flight that took place kept to its schedule, in minutes."""

    number: str
    origin: str
    dest: str
    departed_late: int
    arrived_late: int
    made_up: int
    late: bool


class Movement(LoomFrozenStruct):
    """A take-off or a landing, at one airport."""

    number: str
    airport: str
    kind: str
    delay: int


@step
def validate(flight: Flight) -> Flight | None:
    """Refuse flights that did not take place; drop the shuttles, which do not matter here."""
    if flight.dep_time is None:
        raise RuleViolation("cancelled")
    if flight.arr_delay is None or flight.dep_delay is None:
        raise RuleViolation("no arrival on record: diverted")
    return None if flight.distance < 200 else flight


class Delays(RecordStep[Flight, Punctuality]):
    """Compute the delays; a flight is late from `late_after` minutes on."""

    def __init__(self, late_after: int = 15) -> None:
        self.late_after = late_after

    def execute(self, message: Message[Flight]) -> Punctuality:
        flight = message.payload
        departed, arrived = flight.dep_delay or 0, flight.arr_delay or 0
        number = f"{flight.carrier}{flight.flight}"
        return Punctuality(
            number, flight.origin, flight.dest, departed, arrived, departed - arrived, arrived >= self.late_after
        )


class Movements(ExpandStep[Punctuality, Movement]):
    """A flight is a take-off and a landing."""

    def execute(self, message: Message[Punctuality]) -> Iterable[Movement]:
        flight = message.payload
        yield Movement(flight.number, flight.origin, "take-off", flight.departed_late)
        yield Movement(flight.number, flight.dest, "landing", flight.arrived_late)


@step
def airport(flight: Punctuality) -> str:
    """Where it left from."""
    return flight.origin


flow: StreamFlow[Flight, Movement] = StreamFlow(
    name="flights",
    source=FromTopic("flights.raw", payload=Flight),
    process=Process(
        validate,
        Delays.from_config("delays"),
        Fork.by(
            airport,
            {
                "EWR": Process(Movements, IntoTopic("flights.newark", payload=Movement)),
                "JFK": Process(Movements, IntoTopic("flights.kennedy", payload=Movement)),
            },
            default=Process(IntoTopic("flights.laguardia", payload=Punctuality)),
        ),
    ),
    errors=[
        ErrorRoute(ErrorKind.WIRE, IntoTopic("flights.undecodable")),
        ErrorRoute([ErrorKind.BUSINESS, ErrorKind.TASK, ErrorKind.ROUTING], IntoTopic("flights.rejected")),
    ],
)
