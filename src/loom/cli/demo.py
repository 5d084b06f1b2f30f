"""`loom demo`: the flights example on an in-process broker, with live counters and a table that adds up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loom.cli.live_address import LivePage
from loom.core.counted import counted
from loom.core.errors import LoomError
from loom.examples.flights.data import raw_flights
from loom.examples.flights.flow import Flight, flow
from loom.streaming.errors import ErrorKind
from loom.streaming.kafka.clients import KafkaProducer
from loom.streaming.kafka.embedded import EmbeddedBroker
from loom.streaming.kafka.settings import ProducerSettings
from loom.streaming.metrics import FlowCounts, FlowMetrics
from loom.streaming.record import KafkaRecord
from loom.streaming.runtime.runner import StreamingRunner

__all__ = ["run_demo"]

SOURCE = "flights.raw"
OUTPUTS = ("flights.newark", "flights.kennedy", "flights.laguardia")
ERRORS = ("flights.undecodable", "flights.rejected")

#: Records a second: slow enough to watch, fast enough to finish in a few seconds.
_RATE = 4000
#: The broker keeps only a few MB of each partition, so what is written but not read stays below this many records.
_MOST_AHEAD = 4000
_REFRESH = 0.25


def run_demo(limit: int | None, *, repeat: bool = False) -> None:
    """Run the demo and print its table; `repeat`: the same flights again and again, until it is stopped.

    Raises `LoomError` when the numbers do not add up.
    """
    console = Console(stderr=False)
    with EmbeddedBroker() as broker:
        for topic in (SOURCE, *OUTPUTS, *ERRORS):
            broker.create_topic(topic)
        page = LivePage()
        runner = StreamingRunner.from_dict(flow, _config(broker), observability_runtime=page.observers)
        demo = _Demo(runner, broker, _flights(limit, repeat=repeat), console, page)
        console.print(f"[bold]{flow.name}[/]: reading {SOURCE} on an in-process broker, Ctrl-C stops it in order")
        demo.start()
        try:
            runner.run()
        finally:
            demo.finish()
    demo.report()


def _flights(limit: int | None, *, repeat: bool) -> Iterator[tuple[bytes, bytes]]:
    yield from raw_flights(limit)
    while repeat:
        yield from raw_flights(limit)


def _config(broker: EmbeddedBroker) -> dict[str, Any]:
    return {
        "kafka": {
            "consumer": {
                "brokers": [broker.bootstrap],
                "group_id": "demo",
                "delivery": "at_least_once",
                # This broker answers a waiting fetch only when its time is over.
                "extra": {"fetch.wait.max.ms": 20},
            },
            "producer": {"brokers": [broker.bootstrap]},
        },
        "streaming": {"runtime": {"epoch_interval_ms": 250}},
        "observability": {"log": {"enabled": False}},
        "delays": {"late_after": 15},
    }


class _Demo:
    """Feeds the source topic and shows the counters, in threads beside the run."""

    def __init__(
        self,
        runner: StreamingRunner,
        broker: EmbeddedBroker,
        flights: Iterator[tuple[bytes, bytes]],
        console: Console,
        page: LivePage,
    ) -> None:
        self._runner = runner
        self._settings = ProducerSettings((broker.bootstrap,))
        self._flights = flights
        self._page = page
        self._console = console
        self._over = threading.Event()
        self._all_sent = threading.Event()
        self._sent = 0
        self._started = time.monotonic()
        self._took = 0.0
        self._fault: BaseException | None = None
        self._threads = [threading.Thread(target=self._feed), threading.Thread(target=self._watch)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._took = time.monotonic() - self._started
        self._over.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> None:
        """Print what became of every record; raises when that is not known of each."""
        if self._fault is not None:
            raise LoomError(f"the demo's producer failed: {self._fault}") from self._fault
        counts = self._counts()
        self._console.print(_ledger(counts, self._sent))
        self._console.print(_results(counts))
        results = sum(counts.outputs.values())
        self._console.print(
            f"{counted(counts.read, 'record')} in {self._took:.1f} s; {counted(results, 'result')} left, "
            f"{counts.durable:,} of them durable"
        )
        if (
            counts.read != counts.accounted
            or counts.durable != results
            or (self._all_sent.is_set() and counts.read != self._sent)
        ):
            raise LoomError("the numbers do not add up; this is a defect worth reporting")

    def _feed(self) -> None:
        """Send the flights, a bounded number ahead of the flow."""
        try:
            with KafkaProducer(self._settings, SOURCE, Flight) as producer:
                for key, value in self._flights:
                    producer.send_record(KafkaRecord(SOURCE, key, value))
                    self._sent += 1
                    if self._sent % 200 == 0 and not self._keep_pace(producer):
                        return
            self._all_sent.set()
        except Exception as fault:  # noqa: BLE001 - part of the report; the flow must be stopped first
            self._fault = fault
            self._runner.shutdown()

    def _keep_pace(self, producer: KafkaProducer[Flight]) -> bool:
        """Wait until it is time for more; `False` when the run is over."""
        producer.flush()
        due = self._started + self._sent / _RATE
        while not self._over.is_set():
            ahead = self._sent - self._counts().read
            wait = due - time.monotonic()
            if wait <= 0 and ahead < _MOST_AHEAD:
                return True
            self._over.wait(max(wait, 0.01))
        return False

    def _watch(self) -> None:
        """Show the counters until everything that was sent has ended somewhere, then stop the flow."""
        with Live(console=self._console, refresh_per_second=8, transient=True) as live:
            last, at, shown = 0, self._started, False
            while not self._over.wait(_REFRESH):
                counts, now = self._counts(), time.monotonic()
                if not shown and (where := self._page.address or self._page.missing) is not None:
                    shown = True
                    self._console.print(f"live: {where}", highlight=False)
                live.update(_progress(counts, self._sent, (counts.read - last) / (now - at)))
                if not self._console.is_terminal:
                    self._console.print(_line(counts, now - self._started))
                last, at = counts.read, now
                done = counts.accounted == self._sent and counts.durable == sum(counts.outputs.values())
                if self._all_sent.is_set() and done:
                    self._runner.shutdown()
                    return

    def _counts(self) -> FlowCounts:
        return (self._runner.metrics or FlowMetrics()).read()


def _progress(counts: FlowCounts, sent: int, rate: float) -> Table:
    table = Table(title="live")
    for column in (
        "sent",
        "read",
        "per second",
        "results out",
        "dropped",
        *(f"{kind.value} errors" for kind in ErrorKind),
    ):
        table.add_column(column, justify="right")
    failed = [f"{counts.failed.get(kind, 0):,}" for kind in ErrorKind]
    results = sum(counts.outputs.values())
    table.add_row(f"{sent:,}", f"{counts.read:,}", f"{rate:,.0f}", f"{results:,}", f"{counts.dropped:,}", *failed)
    return table


def _line(counts: FlowCounts, seconds: float) -> str:
    failed = ", ".join(f"{kind.value} {count:,}" for kind, count in sorted(counts.failed.items())) or "none"
    return f"{seconds:5.1f} s  read {counts.read:,}  out {sum(counts.outputs.values()):,}  errors: {failed}"


def _ledger(counts: FlowCounts, sent: int) -> Table:
    """Every input, in exactly one line."""
    table = Table(title="every record that was read", show_footer=True)
    table.add_column("ended as", footer="read")
    table.add_column("records", justify="right", footer=f"{counts.accounted:,}")
    table.add_row("written", f"{counts.written:,}")
    dropped = ", ".join(f"{step}: {count:,}" for step, count in counts.drops.items())
    table.add_row(f"dropped on purpose ({dropped})" if dropped else "dropped on purpose", f"{counts.dropped:,}")
    for kind in ErrorKind:
        table.add_row(f"{kind.value} error", f"{counts.failed.get(kind, 0):,}")
    table.caption = f"{sent:,} were sent, {counts.read:,} read"
    return table


def _results(counts: FlowCounts) -> Table:
    table = Table(title="what was written", show_footer=True)
    table.add_column("topic", footer="total")
    table.add_column("records", justify="right", footer=f"{sum(counts.outputs.values()):,}")
    for topic in (*OUTPUTS, *ERRORS):
        table.add_row(topic, f"{counts.outputs.get(topic, 0):,}")
    return table
