"""The live page in a browser: what a person sees of a running flow. Skipped where no Chromium is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import ErrorKind, ErrorRoute, FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.kafka import EmbeddedBroker
from tests.streaming.e2e.test_live_picture import live
from tests.streaming.e2e.test_metrics_endpoint import serving
from tests.support.running import produce
from tests.support.waiting import LONG_S

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "<img src=x onerror=document.title='owned'>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian's package chromium)"),
]


class Order(LoomFrozenStruct):
    id: int


@step
def check(order: Order) -> Order:
    if order.id < 0:
        raise ValueError(f"no stock {ATTACK}")
    return order


class _Text(HTMLParser):
    """The texts of a page, by the id of the nearest element that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.labels: list[str] = []
        self.tags: set[str] = set()
        self._ids: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attributes}
        self.tags.add(tag)
        self.labels += [named["aria-label"]] if "aria-label" in named else []
        if tag not in ("meta", "link", "img"):
            self._ids.append((tag, named.get("id", self._ids[-1][1] if self._ids else "")))

    def handle_endtag(self, tag: str) -> None:
        while self._ids and self._ids.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._ids and data.strip():
            place = self._ids[-1][1]
            self.found[place] = f"{self.found.get(place, '')} {data.strip()}".strip()


def browse(address: str, profile: Path) -> tuple[_Text, str]:
    """The page once its script has asked, and what the browser's console says."""
    assert BROWSER is not None
    ran = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            # The page is our own, and not every machine lets a browser make a sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--window-size=1280,1000",
            "--virtual-time-budget=3000",
            "--dump-dom",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=True,
    )
    page = _Text()
    page.feed(ran.stdout)
    return page, "\n".join(line for line in ran.stderr.splitlines() if ":CONSOLE" in line)


def test_a_person_sees_the_graph_the_errors_and_the_partitions(broker: EmbeddedBroker, tmp_path: Path) -> None:
    for topic in ("orders.raw", "orders.out", "failed"):
        broker.create_topic(topic)
    flow: StreamFlow[Order, Order] = StreamFlow(
        "orders",
        FromTopic("orders.raw", Order),
        Process(check),
        IntoTopic("orders.out"),
        errors=[ErrorRoute(tuple(ErrorKind), IntoTopic("failed"))],
    )
    with serving(broker.bootstrap, of=flow) as served:
        produce(broker.bootstrap, "orders.raw", b'{"id":1}', b'{"id":-1}', b'{"id":-1}')
        served.wait(lambda: live(served).totals.durable == 3 and live(served).state == "running")
        page, console = browse(f"{served.observer.address}/", tmp_path)
    found = page.found
    assert found["flow"] == "orders"
    assert found["state"] == "● running"
    assert "3 read = 1 written + 0 dropped + 2 failed" in found["totals"]
    for shown in ("orders.raw", "check", "2 failed", "orders.out", "Where failed records go", "failed"):
        assert shown in found["graph"], shown
    assert f"no stock {ATTACK}" in found["errors"]
    assert "task in orders.check" in found["errors"]
    assert re.search(r"2 times|test_live_page\.py:", found["errors"])
    assert "orders.raw" in found["partitions"]
    assert "worker 0" in found["partitions"]
    # What a flow says is text: no element came of it, and no script ran.
    assert "img" not in page.tags
    assert any(label.startswith("Failed records, last 15 minutes: now") for label in page.labels)
    errors = [line for line in console.splitlines() if "favicon" not in line]
    assert not [line for line in errors if "Uncaught" in line or "Refused" in line or "Content Security" in line], (
        errors
    )
