"""How `loom top` looks: the flow and its totals, its graph as a tree, who reads how far, the last errors."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loom.cli.exit_codes import EndpointError
from loom.cli.live_endpoint import Answers, Endpoints
from loom.cli.live_joined import joined
from loom.cli.show import duration
from loom.core.counted import counted
from loom.streaming.runtime.telemetry.live_document import LiveDocument, LiveNode
from loom.streaming.runtime.telemetry.recent_errors import RecentError

__all__ = ["print_once", "watch"]

#: columns of output that is no terminal
_WIDE = 140
_BARS = "▁▂▃▄▅▆▇█"
#: samples that a line shows, each of five seconds, and errors that are told
_SAMPLES, _ERRORS = 36, 3
_STYLES = {"running": "bold green", "stopping": "bold yellow", "not ready": "bold yellow"}


def print_once(endpoints: Endpoints) -> None:
    """Ask, and print what is told. Raises `EndpointError` if nothing is."""
    console = _console()
    console.print(_view(endpoints.ask()))


def watch(endpoints: Endpoints, interval_s: float) -> None:
    """Ask again and again until Ctrl+C; once where the output is no terminal.

    Raises `EndpointError` if nothing answers at first; later it waits until something does again.
    """
    console = _console()
    told, answered = endpoints.ask(), time.monotonic()
    if not console.is_terminal:
        console.print(_view(told))
        return
    try:
        with Live(_view(told), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval_s)
                lost = None
                try:
                    told, answered = endpoints.ask(), time.monotonic()
                except EndpointError as error:
                    lost = f"no answer for {duration(int((time.monotonic() - answered) * 1000))}: {error}"
                live.update(_view(told, lost), refresh=True)
    except KeyboardInterrupt:
        return


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _view(answers: Answers, lost: str | None = None) -> Group:
    documents = answers.documents
    told = joined(documents)
    parts: list[RenderableType] = [_head(told, documents)]
    parts += [Text(lost, style="bold red")] if lost is not None else []
    parts += [Text(f"{address} does not answer: {why}", style="red") for address, why in answers.silent]
    parts += [Text(line, style="red") for line in _problems(documents)]
    parts += [Text(""), _totals(told), Text(""), _graph(told)]
    if len(documents) > 1:
        parts += [Text(""), _processes(documents)]
    parts += [Text(""), *_furthest_behind(documents), *_errors(told.errors)]
    return Group(*parts)


def _head(told: LiveDocument, documents: tuple[LiveDocument, ...]) -> Text:
    head = Text(told.flow, style="bold")
    head.append(f"  {told.state}", style=_STYLES.get(told.state, "bold red"))
    several = f"  {len(documents)} processes" if len(documents) > 1 else f"  {told.process.instance}"
    up = duration(int((told.at - told.process.started_at) * 1000))
    head.append(f"{several}  {told.delivery}, group {told.group}  up {up}  Loom {told.process.version}", style="dim")
    return head


def _problems(documents: Iterable[LiveDocument]) -> Iterator[str]:
    for told in documents:
        for check in (*told.health, *told.readiness):
            if not check.ok:
                yield f"{told.process.instance}: {check.name}: {check.detail or 'not right'}"


def _totals(told: LiveDocument) -> Table:
    now, totals, history = told.now, told.totals, told.history
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim", min_width=34)
    table.add_column(style="cyan", no_wrap=True)
    failed = f"{totals.failed:,} in all, {totals.dropped:,} dropped"
    behind, half = f"up to {_span(now.lag_seconds)} behind", f"95 %; half within {_span(now.latency_p50_s)}"
    inside = f"{now.in_flight:,} in flight, {now.buffered:,} kept"
    for name, value, more, series in (
        ("read", f"{_number(now.read_per_s)}/s", f"{totals.read:,} in all", history.read_per_s),
        ("written", f"{_number(now.written_per_s)}/s", f"{totals.durable:,} durable", history.written_per_s),
        ("failed", f"{_number(now.failed_per_s)}/s", failed, history.failed_per_s),
        ("lag", _number(now.lag_records), behind, history.lag_records),
        ("latency", _span(now.latency_p95_s), half, history.latency_p95_s),
        ("in the flow", f"{now.in_flight + now.buffered:,}", inside, history.in_flight),
    ):
        bad = name == "failed" and now.failed_per_s > 0
        table.add_row(
            name, Text(value, style="red" if bad else ""), more, Text(_bars(series), style="red" if bad else "")
        )
    return table


def _graph(told: LiveDocument) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("node", no_wrap=True, min_width=30, overflow="ellipsis")
    for name in ("in/s", "out/s", "in", "failed/s", "failed", "dropped", "kept", "batch"):
        table.add_column(name, justify="right")
    ways_in = {edge.target for edge in told.edges if not edge.errors}
    only_failed = {edge.target for edge in told.edges if edge.errors} - ways_in
    main = [node for node in told.nodes if node.id not in only_failed]
    for depth, way, node in _tree(main, told):
        table.add_row(*_row(node, depth, way, told.flow))
    if only_failed:
        table.add_row(Text("failed records go to", style="dim"))
    for node in told.nodes:
        if node.id in only_failed:
            titles = ", ".join(edge.title or "" for edge in told.edges if edge.target == node.id)
            table.add_row(*_row(node, 1, titles, told.flow))
    return table


def _tree(nodes: list[LiveNode], told: LiveDocument) -> Iterator[tuple[int, str, LiveNode]]:
    """The nodes from the source on, each behind what records come from, branches further in."""
    after: dict[str, list[tuple[str, str]]] = {}
    known, seen = {node.id: node for node in nodes}, set[str]()
    for edge in told.edges:
        if not edge.errors and edge.source in known and edge.target in known:
            after.setdefault(edge.source, []).append((edge.target, edge.title or ""))
    targets = {target for ways in after.values() for target, _ in ways}
    pending = [(0, "", node.id) for node in reversed(nodes) if node.id not in targets]
    while pending:
        depth, way, found = pending.pop()
        if found in seen:
            continue
        seen.add(found)
        yield depth, way, known[found]
        ways = after.get(found, [])
        deeper = depth + 1 if len(ways) > 1 or any(title for _, title in ways) else depth
        pending += [(deeper, title, target) for target, title in reversed(ways)]


def _row(node: LiveNode, depth: int, way: str, flow: str) -> list[Text]:
    plain = node.title.removeprefix(f"{flow}.")
    name = ", ".join(node.topics) if node.topics else plain
    first = Text("  " * depth)
    if way:
        first.append(f"{way} → ", style="dim")
    first.append(name, style="bold" if not node.topics else "bold cyan")
    if node.open_circuits:
        first.append("  circuit open", style="bold red")
    about = "≈" if node.estimated else ""
    return [
        first,
        Text("-" if node.came_per_s is None else f"{about}{_number(node.came_per_s)}"),
        Text(
            "" if node.topics and node.id != "source" else "-" if node.left_per_s is None else _number(node.left_per_s)
        ),
        Text("-" if node.came is None else f"{node.came:,.0f}", style="dim"),
        Text(_number(node.failed_per_s) if node.failed_per_s else "", style="bold red"),
        Text(f"{node.failed:,}" if node.failed else "", style="red"),
        Text(f"{node.dropped:,}" if node.dropped else "", style="dim"),
        Text(f"{node.buffered:,}" if node.buffered else ""),
        Text("" if node.batch_s is None or node.topics else _span(node.batch_s), style="dim"),
    ]


def _processes(documents: Iterable[LiveDocument]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("process", "instance", "state"):
        table.add_column(name)
    for name in ("read/s", "failed/s", "lag", "behind", "partitions", "restarts"):
        table.add_column(name, justify="right")
    for told in documents:
        now, process = told.now, told.process
        table.add_row(
            f"{process.index} of {process.of}",
            process.instance,
            Text(told.state, style=_STYLES.get(told.state, "bold red")),
            *(_number(value) for value in (now.read_per_s, now.failed_per_s, now.lag_records)),
            _span(now.lag_seconds),
            str(len(told.partitions)),
            str(told.totals.restarts),
        )
    return table


def _furthest_behind(documents: Iterable[LiveDocument]) -> list[Text]:
    found = [(part.lag_records or 0, part, told.process) for told in documents for part in told.partitions]
    if not found:
        return [Text("no partition is read", style="yellow")]
    lag, part, process = max(found, key=lambda one: one[0])
    text = Text(counted(len(found), "partition"), style="dim")
    if lag:
        behind = f"; furthest behind: {part.topic}[{part.partition}], {counted(lag, 'record')}, {_span(part.lag_seconds)}, at "
        text.append(
            f"{behind}{part.committed_offset:,} of {part.end_offset:,} ({process.instance}, worker {part.worker})"
        )
    return [text]


def _errors(errors: Iterable[RecentError]) -> list[Text]:
    lines: list[Text] = []
    told: set[tuple[str, str]] = set()
    for error in errors:
        if (error.step, error.reason) in told or len(told) == _ERRORS:
            continue
        told.add((error.step, error.reason))
        line = Text(f"{datetime.fromtimestamp(error.last_at):%H:%M:%S}  ", style="dim")
        line.append(f"{error.kind} in {error.step}: ", style="red")
        line.append(error.reason)
        if error.raised_at is not None:
            line.append(f"  {error.raised_at.rpartition('/')[2]}", style="dim")
        lines.append(line)
    return [Text("last errors", style="dim"), *lines] if lines else [Text("no errors", style="dim")]


def _bars(series: tuple[float | None, ...]) -> str:
    values = series[-_SAMPLES:]
    most = max((value for value in values if value is not None), default=0)
    if not most:
        return _BARS[0] * len(values)
    return "".join(" " if value is None else _BARS[min(int(value / most * 8), 7)] for value in values)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 10:
        return duration(int(seconds * 1000))
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2f} ms"
