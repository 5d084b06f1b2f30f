"""Logical names to topics and client settings, for the source and for everything that is written.

A missing or invalid entry, an option that is not built yet, and topics that would collide become issues here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, get_origin

from loom.core.config import ConfigContext, ConfigError
from loom.core.config.keys import nearest, render
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.names import child_id
from loom.streaming.compiler.payloads import why_not_read, why_not_written
from loom.streaming.compiler.plan import CompiledSource, CompiledTopic, NodePath, PayloadTypes, StepId
from loom.streaming.compiler.signatures import fits, payloads_of
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.kafka.settings import (
    ConsumerSettings,
    KafkaSettings,
    KafkaSettingsError,
    ProducerSettings,
    WireFormat,
)
from loom.streaming.message import Tombstone
from loom.streaming.nodes.boundary import FromTopic, IntoTopic
from loom.streaming.nodes.shape import StreamShape

__all__ = ["TopicResolver"]

Role: TypeAlias = Literal["consumer", "producer"]
S = TypeVar("S")

_SHAPES_TAKEN: dict[StreamShape, tuple[StreamShape, ...]] = {
    StreamShape.RECORD: (StreamShape.RECORD, StreamShape.MANY),
    StreamShape.MANY: (StreamShape.MANY,),
    StreamShape.BATCH: (StreamShape.BATCH,),
}


class TopicResolver:
    """Resolves the logical names of one flow against one config; used once. `finish` comes last."""

    def __init__(self, config: ConfigContext, issues: Issues) -> None:
        self._config = config
        self._issues = issues
        #: `None` where the section is unusable, which is said once
        self._kafka = self._settings()
        #: logical names that were looked up
        self._asked: dict[Role, set[str]] = {"consumer": set(), "producer": set()}
        #: logical names that fall back to the common producer's topic
        self._fallbacks: set[str] = set()

    def source(self, node: FromTopic[Any]) -> CompiledSource | None:
        """The source, or `None` where it cannot be resolved."""
        settings = self._consumer(node.name)
        if node.shape is not StreamShape.RECORD:
            self._later("source", (), f"FromTopic(shape={node.shape.value!r})", "leave the shape at its default")
        if settings is None:
            return None
        wire_format = settings.format or WireFormat.JSON
        if (get_origin(node.payload) or node.payload) is ErrorEnvelope:
            remedy = "read the topic with FromTopic(…, payload=…) of what was sent to it first"
            self._later("source", (), "FromTopic(payload=ErrorEnvelope), which reads dead letters back,", remedy)
        else:
            self._check_payload("source", (), node.payload, wire_format, why_not_read)
        return CompiledSource(
            node.name,
            node.payload,
            node.shape,
            settings.topics or (node.name,),
            settings,
            settings.effective_delivery,
            wire_format,
            recognise_envelope=settings.format is None,
        )

    def output(
        self,
        node: IntoTopic[Any],
        path: NodePath,
        where: str,
        step_id: StepId,
        flowing: PayloadTypes,
        shape: StreamShape,
    ) -> CompiledTopic | None:
        """An output of messages, checked against what flows into it."""
        if node.payload is not None:
            declared = payloads_of(node.payload)
            if not fits(_bare(flowing), declared):
                self._issues.error(
                    Code.TYPE_MISMATCH,
                    f"the topic {node.name!r} does not take what arrives",
                    where=where,
                    path=path,
                    expected=declared,
                    found=flowing,
                    remedy=f"change the payload of IntoTopic({node.name!r}), or put a step in front that makes it",
                )
        if shape not in _SHAPES_TAKEN.get(node.shape, ()):
            self._issues.error(
                Code.SHAPE_MISMATCH,
                f"the topic {node.name!r} is declared to take {node.shape.value}",
                where=where,
                path=path,
                expected=node.shape.value,
                found=shape.value,
                remedy=f"leave the shape of IntoTopic({node.name!r}) at its default, which takes record and many",
            )
        return self.bare_output(node, path, where, step_id, flowing)

    def bare_output(
        self, node: IntoTopic[Any], path: NodePath, where: str, step_id: StepId, flowing: PayloadTypes
    ) -> CompiledTopic | None:
        """An output whatever flows into it: an error route takes records, not payloads."""
        if node.partitioning is not None:
            self._later(where, path, f"IntoTopic({node.name!r}, partitioning=…)", "give messages their key in a step")
        settings = self._producer(node.name, where, path)
        dlq_settings = self._producer(node.dlq, where, path) if node.dlq is not None else None
        if settings is None:
            return None
        dlq = None
        if node.dlq is not None and dlq_settings is not None:
            dlq_topic = dlq_settings.topic or node.dlq
            dlq = CompiledTopic(node.dlq, dlq_topic, path, where, child_id(step_id, "dlq"), flowing, dlq_settings)
        if where != "errors":
            for member in _bare(flowing).types:
                self._check_payload(where, path, member, settings.format, why_not_written)
        return CompiledTopic(node.name, settings.topic or node.name, path, where, step_id, flowing, settings, dlq)

    def finish(self) -> None:
        """Check what only the whole flow shows."""
        if self._kafka is None:
            return
        if len(self._fallbacks) > 1:
            self._issues.error(
                Code.TOPIC_SHARED,
                "several outputs would all write to the topic of the common producer: "
                + ", ".join(sorted(self._fallbacks)),
                where="config",
                found=f"kafka.producer.topic: {(self._kafka.producer or {})['topic']}",
                remedy="remove kafka.producer.topic, or name a topic for each in kafka.producers",
            )
        named: dict[Role, Any] = {"consumer": self._kafka.consumers, "producer": self._kafka.producers}
        for role, entries in named.items():
            for name in entries.keys() - self._asked[role]:
                close = nearest(name, self._asked[role])
                self._issues.warn(
                    Code.CONFIG_UNREAD,
                    f"nothing reads {_key(role, name)}",
                    where="config",
                    remedy=f"did you mean {close!r}?" if close is not None else "remove it, or use that logical name",
                )

    def _settings(self) -> KafkaSettings | None:
        try:
            return self._config.section_or_default("kafka", KafkaSettings, KafkaSettings())
        except ConfigError as error:
            self._issues.config(Code.CONFIG_INVALID, error)
            return None

    def _consumer(self, name: str) -> ConsumerSettings | None:
        kafka = self._kafka
        if kafka is None:
            return None
        settings = self._looked_up("consumer", name, kafka.consumer_for, "source", ())
        if settings is None:
            return None
        # The setting is on by default, so only one that somebody wrote contradicts.
        written = "enable_auto_commit" in (kafka.consumer_entry(name) or {})
        if settings.delivery is not None and written and settings.enable_auto_commit:
            self._issues.error(
                Code.DELIVERY_CONFLICT,
                f"the consumer of {name!r} is set to delivery: {settings.delivery.value} and to "
                "enable_auto_commit: true, which contradict each other",
                where="config",
                remedy="remove enable_auto_commit; the delivery rules",
            )
        return settings

    def _producer(self, name: str, where: str, path: NodePath) -> ProducerSettings | None:
        kafka = self._kafka
        if kafka is None:
            return None
        if "topic" not in kafka.producers.get(name, {}) and (kafka.producer or {}).get("topic"):
            self._fallbacks.add(name)
        return self._looked_up("producer", name, kafka.producer_for, where, path)

    def _looked_up(self, role: Role, name: str, look_up: Callable[..., S], where: str, path: NodePath) -> S | None:
        self._asked[role].add(name)
        try:
            return look_up(name, file=self._config.file)
        except ConfigError as error:
            self._issues.config(Code.CONFIG_INVALID, error)
        except KafkaSettingsError:
            self._issues.error(
                Code.CONFIG_MISSING,
                f"nothing configures the {role} of {name!r}",
                where=where,
                path=path,
                expected=f"kafka.{role} or {_key(role, name)}",
                remedy=f"add a kafka.{role} section with brokers" + (" and group_id" if role == "consumer" else ""),
            )
        return None

    def _check_payload(
        self,
        where: str,
        path: NodePath,
        payload: Any,
        wire_format: WireFormat,
        why_not: Callable[[Any], str | None],
    ) -> None:
        found = str(PayloadTypes((payload,)))
        if (wire_format is WireFormat.BYTES) != (payload is bytes):
            self._issues.error(
                Code.PAYLOAD_INVALID,
                f"the format {wire_format.value} does not go with this payload",
                where=where,
                path=path,
                expected="bytes" if wire_format is WireFormat.BYTES else "a LoomStruct or LoomFrozenStruct type",
                found=found,
                remedy="set format: bytes for a bytes payload, and another format for any other",
            )
            return
        problem = why_not(payload) if payload is not bytes else None
        if problem is not None:
            self._issues.error(
                Code.PAYLOAD_INVALID,
                problem,
                where=where,
                path=path,
                expected="a LoomStruct or LoomFrozenStruct type",
                found=found,
                remedy=f"let {found} inherit from LoomFrozenStruct, with fields of types that msgspec knows",
            )

    def _later(self, where: str, path: NodePath, what: str, remedy: str) -> None:
        self._issues.error(Code.NOT_SUPPORTED, f"{what} is not supported yet", where=where, path=path, remedy=remedy)


def _bare(payloads: PayloadTypes) -> PayloadTypes:
    return PayloadTypes(tuple(t for t in payloads.types if t is not Tombstone), payloads.known)


def _key(role: Role, name: str) -> str:
    return render(("kafka", f"{role}s", name))
