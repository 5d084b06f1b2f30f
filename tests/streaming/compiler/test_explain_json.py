"""A plan as data: its documented schema, and that a document is read back as it was written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from loom.streaming import (
    Broadcast,
    BroadcastRoute,
    Fork,
    IntoTopic,
    PartitionGuarantee,
    PartitionPolicy,
    Process,
    StreamFlow,
    compile_flow,
    payload,
    step,
)
from loom.streaming.compiler.explain.document import VERSION, PlanDocument, document_of, kind_of
from loom.streaming.compiler.registry import built_in_components
from tests.streaming.compiler.generated import flows
from tests.streaming.compiler.test_explain_any_flow import compiled
from tests.streaming.orders import Price, Split, config, ended, flow, price, validate


class Warehouse:
    def build_partition(self, config: Any, worker_index: int, worker_count: int, **more: Any) -> Any: ...


class ById:
    def partition_key(self, message: Any) -> str:
        return "k"


def document(declared: Any, settings: Any = None) -> Any:
    return json.loads(compile_flow(declared, config=settings or config()).explain("json"))


ERRORS = {
    "name": "orders.errors",
    "topic": "orders.errors",
    "step_id": "orders.errors.into-orders-errors",
    "path": [],
    "format": "json",
    "headers": "auto",
    "payloads": None,
    "partitioning": None,
    "dlq": None,
    "producer": 0,
}


def test_a_flow_is_told_whole() -> None:
    declared = flow(
        price,
        output=IntoTopic(
            "orders.priced", dlq="orders.dead", partitioning=PartitionPolicy(ById(), PartitionGuarantee.ENTITY_STABLE)
        ),
        errors={"task": IntoTopic("orders.errors")},
    )
    found = document(declared, config(producers={"orders.priced": {"topic": "priced-v2", "headers": "full"}}))
    (warning,) = found.pop("warnings")
    assert warning == {
        "code": "errors-unrouted",
        "where": "errors",
        "path": [],
        "message": "no route for wire, routing, business errors: such a record stops the run",
        "expected": None,
        "found": None,
        "remedy": (
            "add a route for them: ErrorRoute([ErrorKind.WIRE, ErrorKind.ROUTING, ErrorKind.BUSINESS], IntoTopic(…))"
        ),
    }
    dead = found["output"]["dlq"]
    assert (dead["name"], dead["topic"], dead["dlq"]) == ("orders.dead", "orders.dead", None)
    found["output"]["dlq"] = "checked"
    assert found == {
        "version": 1,
        "flow": "orders",
        "delivery": "at_least_once",
        "source": {
            "name": "orders.raw",
            "topics": ["orders.raw"],
            "payloads": ["Order"],
            "reads": "payload",
            "format": "json",
            "recognises_envelope": True,
            "shape": "record",
            "group_id": "orders",
        },
        "nodes": [
            {
                "path": [0],
                "step_id": "orders.price",
                "kind": "step",
                "step_kind": "function",
                "shapes": {"in": "record", "out": "record"},
                "accepts": ["Order"],
                "returns": ["PricedOrder"],
                "summary": "(function): Order -> PricedOrder",
                "branches": [],
                "otherwise": None,
                "output": None,
                "sink": None,
            }
        ],
        "output": {
            "name": "orders.priced",
            "topic": "priced-v2",
            "step_id": "orders.output",
            "path": [],
            "format": "json",
            "headers": "full",
            "payloads": ["PricedOrder"],
            "partitioning": "entity_stable",
            "dlq": "checked",
            "producer": 0,
        },
        "errors": [{"kinds": ["task"], "output": ERRORS}],
        "unrouted": {"kinds": ["wire", "routing", "business"], "then": "fail"},
        "producers": [
            {"number": 0, "brokers": ["localhost:9092"], "topics": ["orders.dead", "orders.errors", "priced-v2"]}
        ],
    }


def test_outputs_whose_clients_differ_have_producers_of_their_own() -> None:
    other = {"brokers": ["far:9092"], "extra": {"sasl.oauthbearer.client.secret": "s3cr3t"}}
    declared = flow(price, output=IntoTopic("orders.priced"), errors={"task": IntoTopic("orders.errors")})
    found = document(declared, config(producers={"orders.errors": other}))
    assert (found["output"]["producer"], found["errors"][0]["output"]["producer"]) == (0, 1)
    assert [producer["topics"] for producer in found["producers"]] == [["orders.priced"], ["orders.errors"]]
    assert found["producers"][1]["brokers"] == ["far:9092"]


def test_branches_stand_inside_their_nodes() -> None:
    found = document(
        ended(
            validate,
            Broadcast(
                BroadcastRoute(Process(Split), IntoTopic("orders.lines")),
                BroadcastRoute(Process(Fork.by(payload.country, {"ES": Process(Warehouse())})), name="store"),
            ),
        )
    )
    broadcast = found["nodes"][1]
    lines, store = broadcast["branches"]
    assert (broadcast["kind"], broadcast["shapes"]) == ("broadcast", {"in": "record", "out": "none"})
    assert (lines["label"], lines["path"], lines["output"]["topic"]) == ("orders-lines", [1, 0], "orders.lines")
    (fork,) = store["nodes"]
    assert (fork["kind"], fork["otherwise"], store["output"]) == ("fork", "routing error", None)
    (es,) = fork["branches"]
    assert (es["title"], es["nodes"][0]["kind"], es["nodes"][0]["sink"]) == ("'ES'", "into_sink", "Warehouse")
    assert es["nodes"][0]["path"] == [1, 1, 0, 0, 0]


def test_types_that_are_open_are_null_and_none_at_all_is_an_empty_list() -> None:
    @step(name="drain")
    def drain(order: Any) -> None: ...

    (node,) = document(flow(drain))["nodes"]
    assert (node["accepts"], node["returns"]) == (None, [])


def test_no_delivery_is_null() -> None:
    assert document(flow(price), config(consumer={"delivery": None}))["delivery"] is None


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow=flows())
def test_a_document_is_read_back_as_it_was_written(flow: StreamFlow[Any, Any]) -> None:
    plan = compiled(flow)
    text = plan.explain("json")
    assert msgspec.json.decode(text, type=PlanDocument, strict=True) == document_of(plan)


def test_the_schema_is_the_one_of_this_version() -> None:
    """A field may be added; one that goes or changes its meaning is another version."""
    schema = msgspec.json.schema(PlanDocument)["$defs"]
    assert VERSION == 1
    assert {name: list(found["properties"]) for name, found in schema.items()} == {
        "PlanDocument": [
            "version",
            "flow",
            "delivery",
            "source",
            "nodes",
            "output",
            "errors",
            "unrouted",
            "warnings",
            "producers",
        ],
        "SourceDocument": [
            "name",
            "topics",
            "payloads",
            "reads",
            "format",
            "recognises_envelope",
            "shape",
            "group_id",
        ],
        "NodeDocument": [
            "path",
            "step_id",
            "kind",
            "step_kind",
            "shapes",
            "accepts",
            "returns",
            "summary",
            "branches",
            "otherwise",
            "output",
            "sink",
        ],
        "Shapes": ["in", "out"],
        "BranchDocument": ["label", "title", "path", "nodes", "output"],
        "OutputDocument": [
            "name",
            "topic",
            "step_id",
            "path",
            "format",
            "headers",
            "payloads",
            "partitioning",
            "dlq",
            "producer",
        ],
        "ProducerDocument": ["number", "brokers", "topics"],
        "ErrorRouteDocument": ["kinds", "output"],
        "UnroutedDocument": ["kinds", "then"],
        "WarningDocument": ["code", "where", "path", "message", "expected", "found", "remedy"],
    }


def test_kinds_of_nodes_are_words_that_tools_can_match_on() -> None:
    assert {kind_of(found.compiled) for found in built_in_components() if found.compiled is not None} >= {
        "step",
        "into_topic",
        "into_sink",
        "router",
        "fork",
        "broadcast",
        "explode",
        "expand_routes",
        "collect",
        "for_each",
        "drain",
    }


@pytest.mark.parametrize("format", ["yaml", "", "JSON"])
def test_another_format_is_refused_and_the_known_ones_are_named(format: Any) -> None:
    plan = compile_flow(flow(Price), config=config())
    with pytest.raises(ValueError, match="'text', 'mermaid', 'json'"):
        plan.explain(format)
