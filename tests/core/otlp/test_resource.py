"""Who sends spans is said as the SDK of OpenTelemetry would say it, which is loaded for detectors alone."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from structlog.testing import capture_logs

from loom.core.installed import installed_version
from loom.core.observability import OtelObserver
from loom.core.observability.settings import OtelSettings
from loom.core.observability.spans import FinishedSpan, SpanRole, SpanShape
from loom.core.tracing import new_place
from tests.core.otlp.scripted_collector import ScriptedCollector

INSTANCE = "service.instance.id"
SPAN = FinishedSpan(SpanShape("told", SpanRole.INTERNAL, {}), new_place(), 1, 2)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Iterator[ScriptedCollector]:
    with ScriptedCollector().listening() as listening:
        yield listening


def resource(collector: ScriptedCollector, service_name: str | None = None) -> dict[str, Any]:
    """What a new observer says of itself."""
    observer = OtelObserver(OtelSettings(endpoint=collector.endpoint, service_name=service_name))
    observer.add(SPAN)
    observer.close()
    (found,) = collector.requests.pop().resource_spans
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in found.resource.attributes}


@pytest.mark.parametrize("detectors", [None, "otel", "process"])
@pytest.mark.parametrize(
    ("service_name", "environment"),
    [
        (None, {"OTEL_SERVICE_NAME": "shop"}),
        ("shop", {"OTEL_SERVICE_NAME": "another"}),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"}),
        (None, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=another", "OTEL_SERVICE_NAME": "shop"}),
        ("shop", {"OTEL_RESOURCE_ATTRIBUTES": " k8s.pod.name = a%20b ,deployment=c=d,empty="}),
    ],
)
def test_it_is_what_the_sdk_finds(
    collector: ScriptedCollector,
    monkeypatch: pytest.MonkeyPatch,
    service_name: str | None,
    environment: dict[str, str],
    detectors: str | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if detectors is not None:
        monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", detectors)
    found = resource(collector, service_name)
    assert found["service.name"] == "shop"
    expected = dict(Resource.create({} if service_name is None else {"service.name": service_name}).attributes)
    assert {**found, INSTANCE: ""} == {**expected, INSTANCE: ""}


def test_a_service_that_nobody_names_is_loom(collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    assert resource(collector)["service.name"] == "loom"
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    assert resource(collector)["service.name"] == "loom"


def test_the_id_of_an_instance_is_one_uuid_for_each_process(collector: ScriptedCollector) -> None:
    first, second = resource(collector)[INSTANCE], resource(collector)[INSTANCE]
    assert first == second == str(uuid.UUID(first))
    assert uuid.UUID(first).version == 4


def test_attributes_that_are_none_are_said_and_left_out(
    collector: ScriptedCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "region=eu,nonsense")
    with capture_logs() as lines:
        assert resource(collector)["region"] == "eu"
    assert [(line["variable"], line["value"]) for line in lines if line["event"] == "otel_variable_ignored"] == [
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
    ]


def test_to_send_spans_loads_neither_the_sdk_nor_what_reads_installed_metadata(collector: ScriptedCollector) -> None:
    script = (
        "import sys\nfrom loom.core.observability import OtelObserver\n"
        "from loom.core.observability.settings import OtelSettings\n"
        "from loom.core.observability.spans import FinishedSpan, SpanRole, SpanShape\n"
        "from loom.core.tracing import new_place\n"
        f"observer = OtelObserver(OtelSettings(endpoint={collector.endpoint!r}))\n"
        "observer.add(FinishedSpan(SpanShape('told', SpanRole.INTERNAL, {}), new_place(), 1, 2))\nobserver.close()\n"
        "heavy = ('importlib.metadata', 'opentelemetry.sdk.resources', 'opentelemetry.trace', 'gzip')\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert collector.names == ["told"]
    assert run.stdout.split() == []


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert installed_version() == version("loom-streaming")
