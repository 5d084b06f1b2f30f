"""A plan as AsyncAPI 3: the topics it reads and writes, with the schemas of what they hold. For catalogues and other teams.

https://www.asyncapi.com/docs/reference/specification/v3.0.0, with the Kafka bindings. It shows no address and no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from loom.core.installed import installed_version
from loom.streaming.compiler.model import CompiledTopic, PayloadTypes, PlanModel
from loom.streaming.message import Tombstone, has_message_type, loom_message_type

__all__ = ["as_asyncapi"]

_SCHEMAS = "#/components/schemas/{name}"
_DIALECT = "application/schema+json;version=draft-2020-12"
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9._-]+")
_CONTENT_TYPES = {"json": "application/json", "msgpack": "application/msgpack", "envelope": "application/msgpack"}
_BYTES = "application/octet-stream"
#: what our dead letters say in their headers
_ERROR_HEADERS = ("kind", "reason", "type", "flow", "step", "topic", "partition", "offset")


def as_asyncapi(plan: PlanModel) -> str:
    """The plan as an AsyncAPI 3 document, in JSON."""
    return json.dumps(_Document(plan).made(), indent=2)


class _Document:
    def __init__(self, plan: PlanModel) -> None:
        self._plan = plan
        self._channels: dict[str, dict[str, Any]] = {}
        self._operations: dict[str, dict[str, Any]] = {}
        self._messages: dict[str, dict[str, Any]] = {}
        self._schemas: dict[str, Any] = {}

    def made(self) -> dict[str, Any]:
        plan = self._plan
        source = plan.source
        arriving = PayloadTypes(source.payloads)
        for topic in source.topics:
            self._operation(
                "receive", topic, source.name, arriving, source.wire_format, group_id=source.settings.group_id
            )
        dead = {topic.topic for topic in _dead_letters(plan)}
        for output in plan.topics():
            if output.topic not in dead:
                self._operation("send", output.topic, output.name, output.payloads, output.settings.format)
        for output in _dead_letters(plan):
            self._operation("send", output.topic, output.name, arriving, source.wire_format, dead_letter=True)
        return {
            "asyncapi": "3.0.0",
            "info": {
                "title": plan.name,
                "version": "1.0.0",
                "description": f"The topics of the flow {plan.name}, as Loom Streaming {installed_version()} compiled it.",
            },
            "defaultContentType": "application/json",
            "channels": self._channels,
            "operations": self._operations,
            "components": {"messages": self._messages, "schemas": self._schemas},
        }

    def _operation(
        self,
        action: str,
        topic: str,
        name: str,
        payloads: PayloadTypes,
        format: str,
        *,
        group_id: str | None = None,
        dead_letter: bool = False,
    ) -> None:
        channel = _key(topic)
        known = self._channels.setdefault(
            channel,
            {"address": topic, "messages": {}, "bindings": {"kafka": {"topic": topic, "bindingVersion": "0.5.0"}}},
        )
        references = []
        for message in self._of(payloads, format, dead_letter=dead_letter):
            known["messages"][message] = {"$ref": f"#/components/messages/{message}"}
            references.append({"$ref": f"#/channels/{channel}/messages/{message}"})
        made: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": references}
        if dead_letter:
            made["summary"] = "Dead letters: records as they were read, with what went wrong in x-error-* headers."
        if group_id is not None:
            # The binding describes the group by a schema.
            made["bindings"] = {"kafka": {"groupId": {"type": "string", "enum": [group_id]}, "bindingVersion": "0.5.0"}}
        self._operations.setdefault(f"{action}.{_key(name)}.{channel}", made)

    def _of(self, payloads: PayloadTypes, format: str, *, dead_letter: bool) -> Iterator[str]:
        """The names of the messages for some payload types, which are described on the way."""
        types = [payload for payload in payloads.types if payload is not Tombstone] if payloads.known else []
        if not types:
            yield self._message("anything", {}, format, dead_letter=dead_letter)
        for payload in types:
            try:
                (schema,), components = msgspec.json.schema_components([payload], ref_template=_SCHEMAS)
            except TypeError:
                # Of a type that has its own hook nothing is known.
                schema, components = {}, {}
            self._schemas |= components
            labelled = has_message_type(payload)
            name = loom_message_type(payload) if labelled else PayloadTypes((payload,)).names[0]
            yield self._message(name, schema, format, dead_letter=dead_letter)

    def _message(self, name: str, schema: Any, format: str, *, dead_letter: bool) -> str:
        key = _key(name) + ("-dead-letter" if dead_letter else "")
        payload = schema if format == "json" else {"schemaFormat": _DIALECT, "schema": schema}
        made: dict[str, Any] = {
            "name": name,
            "contentType": _CONTENT_TYPES.get(format, _BYTES),
            "payload": payload,
            "bindings": {"kafka": {"bindingVersion": "0.5.0"}},
        }
        if dead_letter:
            properties = {f"x-error-{part}": {"type": "string"} for part in _ERROR_HEADERS}
            made["headers"] = {
                "type": "object",
                "properties": properties,
                "required": ["x-error-kind", "x-error-reason"],
            }
        self._messages[key] = made
        return key


def _dead_letters(plan: PlanModel) -> list[CompiledTopic]:
    """The topics of error routes and of records that a broker refuses."""
    found = [route.output for route in plan.error_routes]
    found += [output.dlq for output in plan.topics() if output.dlq is not None]
    return list({output.topic: output for output in found}.values())


def _key(name: str) -> str:
    """A name as a key of the document, which holds letters, digits, dots, dashes and underscores."""
    return _NOT_IN_A_NAME.sub("-", name).strip("-") or "message"
