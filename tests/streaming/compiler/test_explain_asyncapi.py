"""A plan as AsyncAPI 3: valid by the rules of the specification, complete, and without a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ErrorKind,
    ErrorRoute,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    compile_flow,
    step,
)
from tests.support.running import config_for

#: the schema that the AsyncAPI Initiative publishes; see the README beside it
ASYNCAPI = json.loads((Path(__file__).resolve().parents[2] / "data" / "asyncapi-3.0.0.json").read_text())


def check(document: dict[str, Any]) -> None:
    """Raise where a document is no AsyncAPI 3."""
    jsonschema.Draft7Validator(ASYNCAPI).validate(document)


class Money(LoomFrozenStruct):
    cents: int


class Placed(LoomFrozenStruct):
    __loom_message_type__ = "shop.placed"

    id: int
    total: Money
    note: str | None = None


class Cancelled(LoomFrozenStruct):
    __loom_message_type__ = "shop.cancelled"

    id: int


@step
def keep(event: Placed | Cancelled) -> Placed:
    return event if isinstance(event, Placed) else Placed(event.id, Money(0))


def document(flow: StreamFlow[Any, Any], **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        compile_flow(flow, config=config_for("secret-host:9092", **config)).explain("asyncapi")
    )
    return found


@pytest.fixture
def shop() -> dict[str, Any]:
    flow = StreamFlow(
        "shop",
        FromMultiTypeTopic("events", (Placed, Cancelled)),
        Process(keep),
        IntoTopic("placed", Placed, dlq="refused"),
        ErrorRoute(tuple(ErrorKind), IntoTopic("errors")),
    )
    return document(flow)


def resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_it_is_what_the_specification_demands(shop: dict[str, Any]) -> None:
    check(shop)
    for reference in references(shop):
        assert resolved(shop, reference) is not None
    for schema in shop["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("channels", "events"), {"adress": "events"}),
        (("info",), {"title": 5}),
        (("operations", "receive.events.events", "bindings", "kafka"), {"groupId": 5}),
        (("components", "messages", "shop.placed"), {"payload": 5}),
    ],
)
def test_the_schema_would_find_what_is_wrong(
    shop: dict[str, Any], place: tuple[str, ...], wrong: dict[str, Any]
) -> None:
    found = shop
    for part in place:
        found = found[part]
    found.update(wrong)
    with pytest.raises(jsonschema.ValidationError):
        check(shop)


def test_an_operation_names_messages_of_its_own_channel(shop: dict[str, Any]) -> None:
    for operation in shop["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
        assert operation["messages"]


def test_every_topic_is_there_with_what_it_holds(shop: dict[str, Any]) -> None:
    held = {channel["address"]: sorted(channel["messages"]) for channel in shop["channels"].values()}
    assert held == {
        "events": ["shop.cancelled", "shop.placed"],
        "placed": ["shop.placed"],
        "errors": ["shop.cancelled-dead-letter", "shop.placed-dead-letter"],
        "refused": ["shop.cancelled-dead-letter", "shop.placed-dead-letter"],
    }
    actions = {name.split(".")[0] for name in shop["operations"]}
    assert actions == {"receive", "send"}
    (reads,) = [operation for operation in shop["operations"].values() if operation["action"] == "receive"]
    assert reads["bindings"]["kafka"]["groupId"]["enum"] == ["readers"]
    letter = shop["components"]["messages"]["shop.placed-dead-letter"]
    assert "x-error-reason" in letter["headers"]["properties"]


def test_the_schema_of_a_message_takes_what_the_flow_writes_and_nothing_else(shop: dict[str, Any]) -> None:
    message = shop["components"]["messages"]["shop.placed"]
    schema = {**message["payload"], "components": shop["components"]}
    jsonschema.validate({"id": 1, "total": {"cents": 5}, "note": None}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"id": 1, "total": {"cents": "5"}}, schema)


@pytest.mark.parametrize(
    ("format", "content_type"), [("msgpack", "application/msgpack"), ("envelope", "application/msgpack")]
)
def test_another_format_says_what_its_schema_is_written_in(format: str, content_type: str) -> None:
    flow = StreamFlow("shop", FromTopic("a", Placed), Process(keep), IntoTopic("b", Placed))
    found = document(flow, producer={"format": format})
    check(found)
    message = found["components"]["messages"]["shop.placed"]
    assert message["contentType"] == content_type
    assert message["payload"]["schemaFormat"].startswith("application/schema+json")


def test_no_address_of_a_broker_is_shown(shop: dict[str, Any]) -> None:
    assert "secret-host" not in json.dumps(shop)
