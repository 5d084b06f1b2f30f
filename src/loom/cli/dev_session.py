"""One session of `loom dev`: an in-process broker, the flow on it, input into it, and what comes out on the screen.

Reading, feeding and showing are threads beside the run, which has the main thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from loom.cli.beside import flows_beside
from loom.cli.decoders import source_encoder, typed_line
from loom.cli.dev_config import on_one_broker
from loom.cli.exit_codes import InputError
from loom.cli.live_address import LivePage
from loom.cli.record_lines import InputLine, LineReader
from loom.cli.records import TopicDecoder, text_of
from loom.cli.sinks import register_sinks
from loom.cli.topics import needed_topics
from loom.core.config import ConfigContext
from loom.core.model import LoomFrozenStruct
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.flow import StreamFlow
from loom.streaming.kafka.clients import KafkaProducer
from loom.streaming.kafka.dead_letters import letter_reader
from loom.streaming.kafka.embedded import EmbeddedBroker
from loom.streaming.kafka.log_reader import LogReader
from loom.streaming.kafka.settings import ConsumerSettings, ProducerSettings
from loom.streaming.metrics import FlowCounts, FlowMetrics
from loom.streaming.record import KafkaRecord, TopicPartition
from loom.streaming.runtime.prepare import prepare
from loom.streaming.runtime.runner import StreamingRunner

__all__ = ["DevOptions", "run_session"]

#: The broker keeps only a few MB of each partition, so what is written but not read stays below this many records.
_MOST_AHEAD = 2000
#: seconds between two looks at the counters, and for what was written to be read by us
_LOOK = 0.1
_SHOWN = 10.0


class DevOptions(LoomFrozenStruct):
    """What a session is told."""

    #: the input, made anew by each call
    lines: Callable[[CompiledPlan, Callable[[], bool]], Iterable[InputLine]]
    #: end when the input is over
    once: bool = False
    rate: float | None = None
    key: str | None = None
    whole: bool = False
    show: bool = True
    sinks: tuple[str, ...] = ()
    #: the process whose end is ours
    parent: int | None = None


def run_session(flow: StreamFlow[Any, Any], config: ConfigContext, options: DevOptions) -> None:
    """Run a flow on a broker of its own until it is stopped, or its input is over.

    Raises what a run raises, and `InputError` for input that cannot be read.
    """
    with EmbeddedBroker() as broker:
        # With input that ends there is nothing to watch.
        page = None if options.once else LivePage(config)
        config = on_one_broker(config, broker.bootstrap)
        observers = page.observers if page is not None else None
        runner = StreamingRunner.from_context(flow, config=config, observability_runtime=observers)
        register_sinks(runner.register_sink, options.sinks, config)
        runner.beside = flows_beside(flow)
        plan = prepare(flow, config, None).plan
        topics = needed_topics(plan)
        partitions = {one.name: broker.create_topic(one.name) for one in topics}
        dead = {one.name for one in topics if one.dead_letters}
        outputs = {name: count for name, count in partitions.items() if name not in plan.source.topics}
        session = _Session(runner, plan, broker.bootstrap, options, outputs, dead, page)
        session.start()
        try:
            runner.run()
        finally:
            session.finish()
        session.report()


class _Session:
    """What happens beside the run."""

    def __init__(
        self,
        runner: StreamingRunner,
        plan: CompiledPlan,
        bootstrap: str,
        options: DevOptions,
        outputs: dict[str, int],
        dead: set[str],
        page: LivePage | None,
    ) -> None:
        self._runner = runner
        self._plan = plan
        self._bootstrap = bootstrap
        self._options = options
        self._outputs = outputs
        self._dead = dead
        self._page = page
        self._console = Console(highlight=False, soft_wrap=True)
        self._over = threading.Event()
        self._fed = threading.Event()
        self._sent = 0
        self._shown = 0
        self._faults: list[BaseException] = []
        self._started = time.monotonic()
        works = [self._feed, self._watch, *([self._show] if options.show and outputs else [])]
        self._threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]

    def start(self) -> None:
        source = ", ".join(self._plan.source.topics)
        self._console.print(
            f"flow {self._plan.name}: reads {source} on an in-process broker; Ctrl+C stops it", markup=False
        )
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._over.set()
        for thread in self._threads:
            # One that waits for a line of standard input ends with the process.
            thread.join(_SHOWN)

    def report(self) -> None:
        """Print where every record has ended. Raises what went wrong beside the run."""
        self._print_counts(self._counts())
        if self._faults:
            raise self._faults[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as fault:  # noqa: BLE001 - raised by the main thread, once the run is stopped in order
            self._faults.append(fault)
            # The run may not have begun yet, and then there is nothing to stop.
            while not self._over.wait(_LOOK):
                self._runner.shutdown()

    def _feed(self) -> None:
        options, topic = self._options, self._plan.source.topics[0]
        make, encode = LineReader(topic, key=options.key, whole=options.whole), source_encoder(self._plan, topic)
        settings = ProducerSettings((self._bootstrap,), extra={"linger.ms": 0})
        with KafkaProducer(settings, topic, dict) as producer:
            for line in options.lines(self._plan, self._over.is_set):
                producer.send_record(self._record(typed_line(self._plan, line), make, encode))
                self._sent += 1
                if not self._keep_pace(producer):
                    return
        self._fed.set()

    def _record(self, line: InputLine, make: LineReader, encode: Any) -> KafkaRecord:
        """The record of a line. One that does not fit is sent as it is: the flow says what becomes of it."""
        topic = self._plan.source.topics[0]
        try:
            return encode(make(line), line.where)  # type: ignore[no-any-return]
        except InputError:
            if self._options.whole or self._options.key is not None:
                raise
            return KafkaRecord(topic, None, line.text)

    def _keep_pace(self, producer: KafkaProducer[Any]) -> bool:
        """Wait until it is time for more; `False` when the session is over."""
        rate = self._options.rate
        due = self._started + self._sent / rate if rate else 0.0
        if due <= time.monotonic() and self._sent % 100:
            return not self._over.is_set()
        producer.flush()
        while not self._over.is_set():
            wait = due - time.monotonic()
            if wait <= 0 and self._sent - self._counts().read < _MOST_AHEAD:
                return True
            self._over.wait(max(wait, 0.01))
        return False

    def _watch(self) -> None:
        """Say how far the flow is when it has caught up; end the session where it is to end."""
        last, told_at = self._counts(), time.monotonic()
        while not self._over.wait(_LOOK):
            self._show_page()
            if self._options.parent is not None and os.getppid() != self._options.parent:
                self._runner.shutdown()
                return
            counts, now = self._counts(), time.monotonic()
            idle = counts.accounted == counts.read == self._sent
            if self._fed.is_set() and self._options.once and idle and counts.durable == sum(counts.outputs.values()):
                self._runner.shutdown()
                return
            if counts.read != last.read and now - told_at >= 1 and not self._options.once:
                rate = (counts.read - last.read) / (now - told_at)
                self._print_counts(counts, f"{rate:,.0f} records/s, {self._sent - counts.accounted:,} behind")
                last, told_at = counts, now

    def _show_page(self) -> None:
        """Say once where the live page is."""
        where = (self._page.address or self._page.missing) if self._page is not None else None
        if where is not None:
            self._page = None
            self._console.print(Text(f"-- live: {where}", style="dim"))

    def _show(self) -> None:
        """Print what the flow writes, decoded, until everything that it wrote is shown."""
        settings = ConsumerSettings(
            (self._bootstrap,), "loom-dev", enable_auto_commit=False, extra={"fetch.wait.max.ms": 20}
        )
        decoders = {topic: TopicDecoder(self._plan, topic) for topic in self._outputs}
        start = {TopicPartition(topic, n): 0 for topic, count in self._outputs.items() for n in range(count)}
        give_up: list[float] = []

        def more_to_come() -> bool:
            if not self._over.is_set():
                return True
            give_up[:] = give_up or [time.monotonic() + _SHOWN / 2]
            written = sum(count for name, count in self._counts().outputs.items() if name in self._outputs)
            return self._shown < written and time.monotonic() < give_up[0]

        with LogReader(settings) as reader:
            for record in reader.follow(start, more_to_come):
                self._console.print(_line(record, decoders[record.topic], record.topic in self._dead))
                self._shown += 1

    def _counts(self) -> FlowCounts:
        return (self._runner.metrics or FlowMetrics()).read()

    def _print_counts(self, counts: FlowCounts, more: str = "") -> None:
        failed = ", ".join(f"{count:,} {kind.value}" for kind, count in sorted(counts.failed.items()) if count)
        text = f"{counts.read:,} read, {counts.written:,} written, {counts.dropped:,} dropped, "
        text += f"{sum(counts.failed.values()):,} failed" + (f" ({failed})" if failed else "")
        self._console.print(Text(f"-- {text}" + (f"; {more}" if more else ""), style="dim"))


_letter_of = letter_reader()


def _line(record: KafkaRecord, decode: TopicDecoder, dead: bool) -> Text:
    """A record as it is shown: where it went, its key, what it holds; of a dead letter also why it failed."""
    shown = decode(record)
    text = Text()
    if dead:
        letter = _letter_of(record)
        at = f" at {letter.at}" if letter.at is not None else ""
        where = letter.step or letter.written_by
        text.append(f"{record.topic}  {letter.kind or 'refused'} in {where}: {letter.reason}{at}", style="red")
        shown = decode(letter.original)
    else:
        text.append(record.topic, style="green")
    if record.key is not None:
        text.append(f"  key={text_of(record.key)}")
    text.append(f"  {msgspec.json.encode(shown.payload).decode()}")
    return text


def generated_lines(make: Callable[[], bytes], count: int | None, over: Callable[[], bool]) -> Iterator[InputLine]:
    """Made-up payloads as lines, so many or until the session is over."""
    made = 0
    while (count is None or made < count) and not over():
        made += 1
        yield InputLine(f"made-up payload {made}", make())
