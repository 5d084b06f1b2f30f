"""Logical names to topics and client settings, for the source and for everything that is written.

A missing or invalid entry, an option that is not built yet, and topics that would collide become issues here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin

from loom.core.config import ConfigContext, ConfigError
from loom.core.config.keys import nearest, render
from loom.core.config.shape import bare, unaliased
from loom.streaming.compiler.catalogue import Code
from loom.streaming.compiler.clients import ClientTable
from loom.streaming.compiler.issues import Issues
from loom.streaming.compiler.model import CompiledSource, CompiledTopic, NodePath, PayloadTypes, Reads, StepId
from loom.streaming.compiler.names import child_id, why_no_topic
from loom.streaming.compiler.partitioning import check_policy
from loom.streaming.compiler.payload_checks import check_output, check_source, check_source_labels
from loom.streaming.compiler.signatures import fits, is_type, payloads_of, without_tombstones
from loom.streaming.errors import ErrorEnvelope
from loom.streaming.formats.registry import WireFormat
from loom.streaming.kafka.settings import (
    ConsumerSettings,
    KafkaSettings,
    KafkaSettingsError,
    ProducerSettings,
)
from loom.streaming.nodes.boundary import (
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
)
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
        #: the section `kafka`; `None` where it is unusable, which is said once
        self.kafka = self._settings()
        self._clients = ClientTable()
        #: logical names that were looked up
        self._asked: dict[Role, set[str]] = {"consumer": set(), "producer": set()}
        #: logical names that fall back to the common producer's topic
        self._fallbacks: set[str] = set()

    def source(self, node: FromTopic[Any] | FromMultiTypeTopic[Any]) -> CompiledSource | None:
        """The source, or `None` where it cannot be resolved."""
        settings = self._consumer(node.name)
        if node.shape is not StreamShape.RECORD:
            self._later(
                "source", (), f"{type(node).__name__}(shape={node.shape.value!r})", "leave the shape at its default"
            )
        if settings is None:
            return None
        for topic in settings.topics or (node.name,):
            self._check_topic_name(topic, "source", (), of_config=bool(settings.topics))
        wire_format = settings.format or WireFormat.JSON
        payloads, reads = _read(node)
        owner = f"{type(node).__name__}({node.name!r})"
        check_source(self._issues, payloads, wire_format, owner, node.dec_hook)
        if reads is Reads.LABELLED:
            check_source_labels(self._issues, payloads)
        return CompiledSource(
            node.name,
            payloads,
            reads,
            node.shape,
            settings.topics or (node.name,),
            settings,
            settings.mode,
            self._clients.cluster(settings),
            wire_format,
            recognise_envelope=settings.format is None,
            dec_hook=node.dec_hook,
        )

    def output(
        self,
        node: IntoTopic[Any],
        path: NodePath,
        where: str,
        step_id: StepId,
        flowing: PayloadTypes,
        shape: StreamShape | None,
        *,
        mixed: bool = False,
    ) -> CompiledTopic | None:
        """An output of messages, checked against what flows into it.

        `shape` is `None` after a node that was refused. `mixed`: it comes from branches that make different types, which
        nothing between has named.
        """
        if node.payload is None and mixed:
            self._issues.error(
                Code.TYPE_MISMATCH,
                f"branches that make different payload types end in the topic {node.name!r}, which names none of them",
                where=where,
                path=path,
                expected="branches that make one type, or a topic that names all",
                found=flowing,
                remedy=f"write IntoTopic({node.name!r}, payload={flowing}), or let the branches make one type",
            )
        elif node.payload is not None and not is_type(node.payload):
            self._issues.error(
                Code.PAYLOAD_INVALID,
                f"the payload of IntoTopic({node.name!r}) is no type",
                where=where,
                path=path,
                expected="a LoomStruct or LoomFrozenStruct type",
                found=type(node.payload).__qualname__,
                remedy=f"write IntoTopic({node.name!r}, payload=…) with the class of what is written, or leave it out",
            )
        elif node.payload is not None:
            declared = payloads_of(node.payload)
            if not fits(without_tombstones(flowing), declared):
                self._issues.error(
                    Code.TYPE_MISMATCH,
                    f"the topic {node.name!r} does not take what arrives",
                    where=where,
                    path=path,
                    expected=declared,
                    found=flowing,
                    remedy=f"change the payload of IntoTopic({node.name!r}), or put a step in front that makes it",
                )
        if shape is not None and shape not in _SHAPES_TAKEN.get(node.shape, ()):
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
        settings = self._producer(node.name, where, path)
        dlq_settings = self._producer(node.dlq, where, path) if node.dlq is not None else None
        if settings is None:
            return None
        dlq = None
        if node.dlq is not None and dlq_settings is not None:
            dlq_topic, dlq_id = dlq_settings.topic or node.dlq, child_id(step_id, "dlq")
            self._check_topic_name(dlq_topic, where, path, of_config=dlq_settings.topic is not None)
            dlq_producer = self._clients.producer(dlq_settings)
            dlq = CompiledTopic(node.dlq, dlq_topic, path, where, dlq_id, flowing, dlq_settings, dlq_producer)
        if node.partitioning is not None:
            check_policy(node, where, path, self._issues)
        if where != "errors":
            owner = f"IntoTopic({node.name!r})"
            check_output(self._issues, without_tombstones(flowing), settings, owner, node.enc_hook, where, path)
        elif node.enc_hook is not None:
            self._issues.error(
                Code.CONFIG_INVALID,
                f"IntoTopic({node.name!r}) has an enc_hook, and dead letters are written as they were read",
                where=where,
                path=path,
                expected="an error route without enc_hook",
                remedy="remove enc_hook=…",
            )
        topic = settings.topic or node.name
        self._check_topic_name(topic, where, path, of_config=settings.topic is not None)
        producer = self._clients.producer(settings)
        return CompiledTopic(
            node.name, topic, path, where, step_id, flowing, settings, producer, node.partitioning, dlq, node.enc_hook
        )

    def _check_topic_name(self, name: str, where: str, path: NodePath, *, of_config: bool) -> None:
        code = Code.CONFIG_INVALID if of_config else Code.NAME_INVALID
        if name.startswith("^"):
            self._issues.error(
                code,
                f"{name!r} is a pattern, and topics are named one by one",
                where=where,
                path=path,
                expected="names of topics that are there when the flow starts",
                remedy="list the topics under kafka.consumer.topics (or in kafka.consumers.<name>), and start the flow again "
                "when there are more"
                if where == "source"
                else "write to one topic by its name",
            )
            return
        problem = why_no_topic(name)
        if problem is not None:
            self._issues.error(
                code,
                problem,
                where=where,
                path=path,
                expected="up to 249 letters, digits, dots, underscores and hyphens",
                remedy=f"correct the name in the {'config' if of_config else 'flow'}",
            )

    def finish(self) -> None:
        """Check what only the whole flow shows."""
        if self.kafka is None:
            return
        if len(self._fallbacks) > 1:
            self._issues.error(
                Code.TOPIC_SHARED,
                "several outputs would all write to the topic of the common producer: "
                + ", ".join(sorted(self._fallbacks)),
                where="config",
                found=f"kafka.producer.topic: {(self.kafka.producer or {})['topic']}",
                remedy="remove kafka.producer.topic, or name a topic for each in kafka.producers",
            )
        named: dict[Role, Any] = {"consumer": self.kafka.consumers, "producer": self.kafka.producers}
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
        kafka = self.kafka
        if kafka is None:
            return None
        settings = self._looked_up("consumer", name, kafka.consumer_for, "source", ())
        if settings is None:
            return None
        # The setting is on by default, so only an explicit one contradicts.
        written = "enable_auto_commit" in (kafka.consumer_entry(name) or {})
        if written and settings.enable_auto_commit and not settings.mode.commits_by_client:
            self._issues.error(
                Code.DELIVERY_CONFLICT,
                f"the consumer of {name!r} is set to delivery: {settings.mode.label} and to "
                "enable_auto_commit: true, which contradict each other",
                where="config",
                remedy="remove enable_auto_commit; the delivery rules",
            )
        return settings

    def _producer(self, name: str, where: str, path: NodePath) -> ProducerSettings | None:
        kafka = self.kafka
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
            mistyped = self._config.nearest_section("kafka")
            self._issues.error(
                Code.CONFIG_MISSING,
                f"nothing configures the {role} of {name!r}",
                where=where,
                path=path,
                expected=f"kafka.{role} or {_key(role, name)}",
                remedy=f"the config has a section {mistyped!r}; did you mean 'kafka'?"
                if mistyped is not None
                else f"add a kafka.{role} section with brokers" + (" and group_id" if role == "consumer" else ""),
            )
        return None

    def _later(self, where: str, path: NodePath, what: str, remedy: str) -> None:
        self._issues.error(Code.NOT_SUPPORTED, f"{what} is not supported yet", where=where, path=path, remedy=remedy)


def _read(node: FromTopic[Any] | FromMultiTypeTopic[Any]) -> tuple[tuple[Any, ...], Reads]:
    """The types that are decoded, and how a record's is found."""
    several = isinstance(node, FromMultiTypeTopic)
    payloads = tuple(map(unaliased, node.payloads if isinstance(node, FromMultiTypeTopic) else (node.payload,)))
    shapes = list(map(bare, payloads))
    if all((get_origin(shape) or shape) is ErrorEnvelope for shape in shapes):
        originals = [unaliased(original) for shape in shapes for original in get_args(shape) or (Any,)]
        return tuple(dict.fromkeys(originals)), Reads.DEAD_LETTERS
    return payloads, Reads.LABELLED if several else Reads.PAYLOAD


def _key(role: Role, name: str) -> str:
    return render(("kafka", f"{role}s", name))
