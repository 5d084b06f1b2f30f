"""Invoices to bookings, line by line; what fails ends in a table.

    loom run loom.examples.error_table.flow:flow --config config.yaml --sink loom.examples.error_table.sink:SqliteErrorTable

The flow routes no errors: the config names a sink that takes them all.
"""

from __future__ import annotations

from collections.abc import Iterable

from loom.core.errors import RuleViolation
from loom.core.model import LoomFrozenStruct
from loom.streaming import ExpandStep, FromTopic, IntoTopic, Message, Process, RecordStep, StreamFlow, step

__all__ = ["flow"]


class Line(LoomFrozenStruct):
    """One position of an invoice."""

    invoice: int
    text: str
    amount: float
    currency: str = "EUR"


class Invoice(LoomFrozenStruct):
    """An invoice; the lines do not repeat its number."""

    number: int
    texts: tuple[str, ...]
    amounts: tuple[float, ...]
    currency: str = "EUR"


class Booking(LoomFrozenStruct):
    """What is booked for a line."""

    invoice: int
    text: str
    euros: float


class Lines(ExpandStep[Invoice, Line]):
    """Take an invoice apart."""

    def execute(self, message: Message[Invoice]) -> Iterable[Line]:
        invoice = message.payload
        for text, amount in zip(invoice.texts, invoice.amounts, strict=True):
            yield Line(invoice.number, text, amount, invoice.currency)


@step
def positive(line: Line) -> Line:
    """Refuse lines that are worth nothing: a business error of that line alone."""
    if line.amount <= 0:
        raise RuleViolation(f"{line.text} is worth {line.amount}")
    return line


class Convert(RecordStep[Line, Booking]):
    """Convert to euros; a currency without a rate is a task error."""

    def __init__(self, rates: dict[str, float]) -> None:
        self._rates = rates

    def execute(self, message: Message[Line]) -> Booking:
        line = message.payload
        return Booking(line.invoice, line.text, round(line.amount * self._rates[line.currency], 2))


flow: StreamFlow[Invoice, Booking] = StreamFlow(
    name="invoices",
    source=FromTopic("invoices", payload=Invoice),
    process=Process(Lines, positive, Convert.from_config("conversion")),
    output=IntoTopic("bookings", payload=Booking),
)
