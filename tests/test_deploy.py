"""What stands in `deploy/` names only metrics and labels that there are, and is what Prometheus and Grafana take.

Where `promtool` is installed (Debian's package `prometheus`), it checks the rules and a scrape too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loom.core.observability.metrics import Histogram, MetricKind, MetricSamples
from loom.core.observability.prometheus_observer import PrometheusObserver
from loom.streaming.runtime.telemetry.catalogue import METRICS
from tests.support.waiting import LONG_S

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "deploy" / "alerts" / "loom.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "loom.json"
#: what Prometheus adds to every sample
_TARGET = {"instance", "job"}


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[Any]:
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in panels():
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


def series() -> dict[str, set[str]]:
    """Every series that is stored, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in METRICS.values():
        labels = {*metric.labels, *_TARGET}
        if metric.kind is MetricKind.HISTOGRAM:
            found |= {
                f"{metric.name}_bucket": labels | {"le"},
                f"{metric.name}_sum": labels,
                f"{metric.name}_count": labels,
            }
        else:
            found[metric.name] = labels
    return found


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_names_only_series_and_labels_that_there_are(expression: str) -> None:
    known = series()
    named = set(re.findall(r"\bloom_\w+", expression))
    assert named
    assert named <= known.keys()
    labels = set.union(*(known[name] for name in named))
    grouped = re.findall(r"\b(?:by|without|on|ignoring) ?\(([^)]*)\)", expression)
    asked = {label.strip() for group in grouped for label in group.split(",")}
    asked |= {
        label
        for braces in re.findall(r"\{([^}]*)\}", expression)
        for label in re.findall(r"(\w+) ?(?:=~|=|!=)", braces)
    }
    assert asked <= labels


def test_every_alert_says_what_it_means_and_what_to_do_first() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["runbook"]) > 30
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert shown <= {"flow", "topic", "brokers"}


def test_run_book_lines_name_only_log_events_that_there_are() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    headers = {"x-error-step", "x-error-reason"}
    for rule in rules():
        named = set(re.findall(r"`([a-z_]+)`", rule["annotations"]["runbook"]))
        checks = {"brokers", "assignment", "positions"}
        assert named - checks - headers <= listed, rule["alert"]


def test_legends_of_the_dashboard_show_labels_that_the_expression_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            by = {
                label.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(",")
            }
            assert shown <= (by or set.union(*series().values())), panel["title"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


class _Everything:
    """A source with a value for every metric."""

    name, process_index = "orders", 0

    def metrics(self) -> Iterator[MetricSamples]:
        histogram = Histogram((0.1, 1.0))
        histogram.observe(0.5)
        for metric in METRICS.values():
            labels = tuple("orders" if label == "flow" else "a" for label in metric.labels)
            yield MetricSamples(metric, {labels: histogram.value if metric.kind is MetricKind.HISTOGRAM else 1.0})

    def health(self) -> list[Any]:
        return []

    def readiness(self) -> list[Any]:
        return []

    def pages(self) -> dict[str, Any]:
        return {}


def _promtool(*arguments: str, stdin: str = "") -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    ran = subprocess.run([found, *arguments], input=stdin, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_the_rules() -> None:
    _promtool("check", "rules", str(RULES))


def test_a_scrape_follows_the_conventions_of_prometheus() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    observer = PrometheusObserver()
    observer.attach(_Everything())
    ours = CollectorRegistry()
    ours.register(next(c for c in observer.registry._collector_to_names if type(c).__name__ == "_Collector"))
    text = generate_latest(ours).decode()
    assert text.count("# TYPE loom_") == len(METRICS)
    _promtool("check", "metrics", stdin=text)
