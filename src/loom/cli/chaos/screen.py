"""The books of a run under chaos, as a table and as the last lines of the run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from loom.cli.chaos.books import Balance
from loom.core.counted import counted
from loom.core.errors import LoomError

__all__ = ["close_books", "ledger"]


def ledger(found: Balance, killed: int, when: str, seconds: float) -> Table:
    """The books as a table; what is missing is on its way until the run is over, and lost then."""
    over = when == "at the end"
    table = Table(title=f"the books {when}, {seconds:.1f} s")
    for column in ("killed", "records in", "results out", "lost" if over else "on their way", "doubled"):
        table.add_column(column, justify="right")
    table.add_row(f"{killed}", f"{found.sent:,}", f"{found.results:,}", f"{found.missing:,}", f"{found.doubled:,}")
    return table


def close_books(found: Balance, delivery: str, killed: int, console: Console, seconds: float) -> None:
    """Print the books. Raises `LoomError` if they do not balance under this guarantee."""
    console.print(ledger(found, killed, "at the end", seconds))
    if found.missing or found.strange or (found.doubled and delivery == "exactly_once"):
        strange = f", {counted(found.strange, 'result')} of no input" if found.strange else ""
        raise LoomError(
            f"the books do not balance under {delivery}: {found.missing:,} lost, {found.doubled:,} doubled{strange}; "
            "this is a defect worth reporting"
        )
    said = f"the books balance: {counted(killed, 'kill')}, 0 lost, {found.doubled:,} doubled"
    if delivery == "exactly_once":
        console.print(said)
        return
    console.print(
        f"{said}. at_least_once writes again what a killed process had not committed. exactly_once doubles nothing; it\n"
        "needs a real broker: loom demo --chaos --brokers HOST:PORT"
    )
