"""The image, the Compose file and the manifests in `deploy/`: valid by their schemas, hardened, and in agreement with the flow.

The schemas hold the parts of the APIs that we use, so that an unknown or misspelled key is found without a cluster.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from loom.core.config import ConfigContext
from loom.core.observability.scrape_server import ScrapeServer
from loom.streaming.runtime.prepare import PreparedFlow, prepare

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).with_name("schemas")
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
#: what the pods of the Compose file and of the manifests run as
USER = 10001
PARTITIONS = 6


def documents() -> Iterator[Any]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield pytest.param(document, id=f"{path.stem}-{document['kind']}")


def workloads() -> list[dict[str, Any]]:
    found = [document.values[0] for document in documents()]
    return [document for document in found if document["kind"] in {"Deployment", "StatefulSet"}]


def of_kind(kind: str, name: str) -> dict[str, Any]:
    found = [document.values[0] for document in documents()]
    return next(one for one in found if one["kind"] == kind and one["metadata"]["name"] == name)


def config_of(workload: Mapping[str, Any]) -> dict[str, Any]:
    """What the pods of a workload are given as their config."""
    (volume,) = workload["spec"]["template"]["spec"]["volumes"]
    config: dict[str, Any] = yaml.safe_load(of_kind("ConfigMap", volume["configMap"]["name"])["data"]["config.yaml"])
    return config


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The flow that the image holds."""
    monkeypatch.setenv("KAFKA_BROKERS", "kafka:9092")
    monkeypatch.delenv("LOOM_GROUP_INSTANCE_ID", raising=False)
    spec = importlib.util.spec_from_file_location("deployed_flow", DEPLOY / "example" / "flow.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "deployed_flow", module)
    spec.loader.exec_module(module)
    return module.flow


def prepared(flow: Any, config: Mapping[str, Any] | Path) -> PreparedFlow:
    loaded = ConfigContext.from_yaml(config) if isinstance(config, Path) else ConfigContext.from_dict(config)
    return prepare(flow, loaded, None)


@pytest.mark.parametrize("document", list(documents()))
def test_a_manifest_is_what_its_schema_says(document: dict[str, Any]) -> None:
    schema = json.loads((SCHEMAS / "kubernetes.json").read_text())
    kind = f"{document['apiVersion']}/{document['kind']}".replace("/", "_")
    assert kind in schema["$defs"], f"there is no schema of {kind}"
    jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{kind}"}).validate(document)


def test_the_compose_file_is_what_its_schema_says() -> None:
    schema = json.loads((SCHEMAS / "compose.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(compose())


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("spec", "template", "spec", "containers", 0, "livenessProbe"), "periodSecond", 5),
        (("spec", "template", "spec"), "terminationGracePeriodSeconds", "60"),
        (("spec", "template", "spec", "containers", 0, "securityContext"), "readOnlyRootFileSystem", True),
        (("spec", "strategy", "rollingUpdate"), "maxSurge", "one"),
    ],
)
def test_the_schema_finds_a_mistake(path: tuple[Any, ...], key: str, value: Any) -> None:
    document = of_kind("Deployment", "orders")
    place = document
    for part in path:
        place = place[part]
    place[key] = value
    with pytest.raises(jsonschema.ValidationError, match=key if isinstance(value, bool | int) else str(value)):
        test_a_manifest_is_what_its_schema_says(document)


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_the_config_of_a_workload_compiles_with_the_flow_of_the_image(workload: dict[str, Any], example: Any) -> None:
    assert prepared(example, config_of(workload)).plan.source.settings.membership == "group"


def test_the_config_of_the_image_compiles_with_its_flow(example: Any) -> None:
    assert prepared(example, DEPLOY / "example" / "config.yaml").plan.name == "orders"


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_a_pod_has_longer_to_stop_than_the_flow_takes(workload: dict[str, Any]) -> None:
    limit_ms = config_of(workload)["streaming"]["runtime"]["force_shutdown_timeout_ms"]
    assert workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] * 1000 > limit_ms


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_a_pod_is_asked_where_the_flow_answers(workload: dict[str, Any]) -> None:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    served = config_of(workload)["observability"]["prometheus"]["config"]
    assert served["bind_address"] == "0.0.0.0"
    assert container["ports"] == [{"name": "metrics", "containerPort": served["port"]}]
    annotations = workload["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(served["port"])
    server = ScrapeServer("127.0.0.1", 0, "/metrics", lambda _: ("text/plain", b""), lambda: (), lambda: ())
    server.start()
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == "metrics"
            assert httpx.get(server.address + asked["path"]).status_code == 200
    finally:
        server.stop()
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_a_pod_may_do_as_little_as_possible(workload: dict[str, Any]) -> None:
    spec = workload["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == USER
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_only_pods_that_keep_their_names_are_members_by_name() -> None:
    names = {
        workload["kind"]: [
            variable
            for variable in workload["spec"]["template"]["spec"]["containers"][0]["env"]
            if variable["name"] == "LOOM_GROUP_INSTANCE_ID"
        ]
        for workload in workloads()
    }
    assert names["Deployment"] == []
    assert names["StatefulSet"] == [
        {"name": "LOOM_GROUP_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    ]


def test_a_named_pod_is_back_before_its_session_is_over() -> None:
    workload = of_kind("StatefulSet", "orders-named")
    session_s = config_of(workload)["kafka"]["consumer"]["session_timeout_ms"] / 1000
    assert session_s > workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_selectors_find_their_pods(workload: dict[str, Any]) -> None:
    name = workload["metadata"]["name"]
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels
    assert of_kind("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"].items() <= labels
    if workload["kind"] == "StatefulSet":
        assert workload["spec"]["serviceName"] == name
        assert of_kind("Service", name)["spec"]["selector"].items() <= labels


def test_the_scaler_looks_at_the_lag_of_the_flow_it_scales(example: Any) -> None:
    scaler = of_kind("ScaledObject", "orders")["spec"]
    workload = of_kind("Deployment", scaler["scaleTargetRef"]["name"])
    assert "replicas" not in workload["spec"]
    source = prepared(example, config_of(workload)).plan.source
    (trigger,) = scaler["triggers"]
    assert trigger["metadata"]["consumerGroup"] == source.settings.group_id
    assert [trigger["metadata"]["topic"]] == list(source.topics)
    (brokers,) = (
        variable["value"]
        for variable in workload["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "KAFKA_BROKERS"
    )
    assert trigger["metadata"]["bootstrapServers"] == brokers
    assert scaler["maxReplicaCount"] <= PARTITIONS


def test_the_compose_file_makes_the_topics_of_the_flow_and_stops_it_in_order(example: Any) -> None:
    services = compose()["services"]
    flow = services["flow"]
    (script,) = services["topics"]["command"]
    plan = prepared(example, DEPLOY / "example" / "config.yaml").plan
    for topic in (*plan.source.topics, *(output.topic for output in plan.topics())):
        assert topic in script
    assert f"--partitions {PARTITIONS}" in script
    assert (flow["user"], flow["read_only"], flow["cap_drop"]) == (f"{USER}:{USER}", True, ["ALL"])
    limit_ms = yaml.safe_load((DEPLOY / "example" / "config.yaml").read_text())["streaming"]["runtime"]
    assert int(flow["stop_grace_period"].removesuffix("s")) * 1000 > limit_ms["force_shutdown_timeout_ms"]
    context = DEPLOY / flow["build"]["context"]
    assert (context / flow["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_has_a_glibc_base_and_runs_as_nobody_in_particular() -> None:
    found = instructions()
    bases = [text.split()[0] for name, text in found if name == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.1[12]-slim-bookworm", base) for base in bases)
    assert [text for name, text in found if name == "USER"] == [f"{USER}:{USER}"]
    assert found.index(("USER", f"{USER}:{USER}")) > max(i for i, (name, _) in enumerate(found) if name == "RUN")


def test_the_image_runs_the_flow_without_a_shell_and_holds_what_it_needs() -> None:
    found = dict(instructions())
    assert json.loads(found["ENTRYPOINT"]) == ["loom"]
    assert json.loads(found["CMD"]) == ["run", "flow:flow", "--config", "/app/config.yaml"]
    copied = {
        file
        for name, text in instructions()
        if name == "COPY" and "--from" not in text
        for file in shlex.split(text)[:-1]
        if "*" not in file
    }
    assert all((DEPLOY / "example" / file).is_file() for file in copied)
    assert {"flow.py", "config.yaml"} <= copied
