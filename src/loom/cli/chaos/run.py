"""One run under chaos: input, a flow that is killed again and again, the results, and the books on the screen."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loom.cli.chaos.books import NUMBER, Balance, Books, expected_results, numbered
from loom.cli.chaos.place import Place, place_of
from loom.cli.chaos.screen import close_books, ledger
from loom.cli.demo import ERRORS, OUTPUTS, SOURCE
from loom.core.counted import counted
from loom.core.errors import LoomError
from loom.examples.flights.data import raw_flights
from loom.examples.flights.flow import Flight, flow
from loom.streaming.headers import Headers
from loom.streaming.kafka.clients import KafkaProducer
from loom.streaming.kafka.log_reader import LogReader
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from loom.streaming.kafka.topic_admin import TopicAdmin
from loom.streaming.record import KafkaRecord, TopicPartition

__all__ = ["run_chaos"]

_RECORDS = 4000
_SETTINGS = {"delays": {"late_after": 15}, "observability": {"log": {"enabled": False}}}
#: records a second, and how many at once, while a life lasts
_RATE, _CHUNK = 400, 20
#: seconds without any new result after which the run is given up
_GIVE_UP = 60.0
#: seconds in which no more result may come before the books are closed
_QUIET = 1.0
_REFRESH = 0.1


def run_chaos(kills: int, limit: int | None, brokers: str | None, seed: int | None = None) -> None:
    """Kill the demo's flow so many times while it works, let the last life finish, and print the books.

    Raises:
        LoomError: the books do not balance, or the flow ended by itself.
        KafkaTransportError: from a cluster that does not answer.
    """
    console = Console()
    records = numbered(SOURCE, raw_flights(limit or _RECORDS))
    books = Books(expected_results(flow, _SETTINGS, records, (*OUTPUTS, *ERRORS)))
    topics = (SOURCE, *OUTPUTS, *ERRORS)
    with place_of(brokers, topics) as place, tempfile.TemporaryDirectory() as folder:
        console.print(
            f"[bold]{flow.name}[/] under [bold]{place.delivery}[/]: {counted(len(records), 'record')}, "
            f"{counted(kills, 'SIGKILL')}; Ctrl-C stops"
        )
        chaos = _Chaos(place, books, records, kills, random.Random(seed), console, Path(folder))
        chaos.run()
        close_books(books.balance(), place.delivery, chaos.killed, console, chaos.seconds)


class _Chaos:
    """The threads of a run: one writes the input, one reads the results, the main thread starts and kills."""

    def __init__(
        self,
        place: Place,
        books: Books,
        records: list[KafkaRecord],
        kills: int,
        chance: random.Random,
        console: Console,
        folder: Path,
    ) -> None:
        self._place = place
        self._books = books
        self._records = records
        self._kills = kills
        self._chance = chance
        self._console = console
        self._output = folder / "output"
        self._config = folder / "config.yaml"
        self._config.write_text(yaml.safe_dump(place.config(SOURCE, (*OUTPUTS, *ERRORS), _SETTINGS)))
        self._over = threading.Event()
        self._fault: BaseException | None = None
        #: how many records may have been written by now, and whether they come one by one or at once
        self._allowed, self._paced = 0, False
        self._more = threading.Condition()
        self._began = time.monotonic()
        self.killed = 0

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._began

    def run(self) -> None:
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in (self._feed, self._read)]
        for thread in threads:
            thread.start()
        try:
            with self._shown():
                share = len(self._records) // (self._kills + 1)
                for life in range(self._kills):
                    self._live_and_die(life * share, share)
                    if not self._console.is_terminal:
                        self._console.print(_line(self._books.balance(), self.killed, self.seconds))
                self._allow(len(self._records))
                self._live_to_the_end()
        finally:
            self._over.set()
            with self._more:
                self._more.notify_all()
            for thread in threads:
                thread.join()
        self._raise_fault()

    def _allow(self, records: int, *, paced: bool = False) -> None:
        with self._more:
            self._allowed, self._paced = records, paced
            self._more.notify_all()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:  # noqa: BLE001 - raised in the main thread
            self._fault = fault

    def _feed(self) -> None:
        """Write the input, as far as it is allowed."""
        topic = self._place.topic(SOURCE)
        with KafkaProducer(ProducerSettings((self._place.bootstrap,)), topic, Flight) as producer:
            done = 0
            while done < len(self._records):
                with self._more:
                    self._more.wait_for(lambda: self._over.is_set() or self._allowed > done)  # noqa: B023
                    upto = min(self._allowed, done + _CHUNK) if self._paced else self._allowed
                if self._over.is_set() or (self._paced and self._over.wait(_CHUNK / _RATE)):
                    return
                for record in self._records[done:upto]:
                    producer.send_record(KafkaRecord(topic, record.key, record.value, record.headers))
                producer.flush()
                for record in self._records[done:upto]:
                    self._books.sent(Headers.of(record.headers).get(NUMBER) or b"")
                done = upto

    def _read(self) -> None:
        """Read the results, committed ones only, until the run is over."""
        by_name = {self._place.topic(name): name for name in (*OUTPUTS, *ERRORS)}
        settings = ConsumerSettings((self._place.bootstrap,), "loom-demo-reader", extra={"fetch.wait.max.ms": 20})
        found = TopicAdmin(settings.to_confluent_config()).existing(by_name)
        start = {TopicPartition(name, one.number): 0 for name, topic in found.items() for one in topic.partitions}
        with LogReader(settings) as reader:
            for record in reader.follow(start, lambda: not self._over.is_set()):
                self._books.found(by_name[record.topic], record)

    def _live_and_die(self, start: int, share: int) -> None:
        """A life that ends by SIGKILL, at a random moment while it works: one half of its share waits for it, and the
        other comes while it runs.
        """
        self._allow(start + share // 2)
        with self._process() as process:
            self._until(process, lambda before, now: now.results > before.results)
            self._allow(start + share, paced=True)
            self._pause(process, self._chance.uniform(0.0, share / 2 / _RATE))
            process.kill()
            process.wait()
            self.killed += 1
        # What this life has written is not taken for a result of the next.
        self._until_quiet(2 * _REFRESH, lambda: self._over.wait(_REFRESH))

    def _live_to_the_end(self) -> None:
        """The last life: until nothing is missing and nothing more comes; then it is stopped in order."""
        with self._process() as process:
            self._until(process, lambda _, now: now.complete and now.sent == len(self._records))
            self._until_quiet(_QUIET, lambda: self._pause(process, _REFRESH))
            process.send_signal(signal.SIGTERM)
            if process.wait(30):
                raise LoomError(
                    f"the flow did not stop in order: it ended with {process.returncode}{self._last_words()}"
                )

    def _until(self, process: subprocess.Popen[bytes], done: Callable[[Balance, Balance], bool]) -> None:
        before = last = self._books.balance()
        moved = time.monotonic()
        while not done(before, now := self._books.balance()):
            if now.results != last.results:
                last, moved = now, time.monotonic()
            if time.monotonic() - moved > _GIVE_UP:
                return  # the books say what is missing
            self._pause(process, 0.02)

    def _until_quiet(self, seconds: float, wait: Callable[[], object]) -> None:
        """Until no more results have been read for so long."""
        quiet, results = time.monotonic(), self._books.balance().results
        while time.monotonic() - quiet < seconds:
            wait()
            if (now := self._books.balance().results) != results:
                quiet, results = time.monotonic(), now

    def _pause(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Wait while the flow runs. Raises `LoomError` if it ends by itself, or what a thread has raised."""
        self._raise_fault()
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(seconds)
            raise LoomError(f"the flow ended by itself, with {code}{self._last_words()}")

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise LoomError(f"the demo's own client failed: {self._fault}") from self._fault

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        """The flow in a process of its own, which is gone when the block is left."""
        module = "loom.examples.flights.flow:flow"
        command = [sys.executable, "-m", "loom.cli.main", "run", module, "--config", str(self._config)]
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | {"PYTHONUNBUFFERED": "1"}
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _last_words(self) -> str:
        said = self._output.read_text(errors="replace").strip().splitlines()[-3:]
        return ":\n" + "\n".join(said) if said else ""

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """The books on the screen, renewed all the time; without a terminal a line for each kill."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._ledger, console=self._console, refresh_per_second=10, transient=True):
            yield

    def _ledger(self) -> Table:
        return ledger(self._books.balance(), self.killed, "so far", self.seconds)


def _line(found: Balance, killed: int, seconds: float) -> str:
    return (
        f"{seconds:5.1f} s  SIGKILL {killed}: in {found.sent:,}  out {found.results:,}  on their way {found.missing:,}  "
        f"doubled {found.doubled:,}"
    )
