"""The `kafka` section of the config, as structs, and the client properties made from it. No client is imported here.

Read by the compiler (which needs delivery and formats) and by the clients (which need the properties).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from loom.core.config import ConfigError, ConfigProblem, convert_section
from loom.core.config.field_error import MOST_MS, FieldError, require_number, require_text
from loom.core.config.keys import render
from loom.streaming.errors import LoomStreamingError
from loom.streaming.formats.registry import WireFormat
from loom.streaming.kafka.brokers import broker_list, check_addresses
from loom.streaming.kafka.delivery import Delivery, DeliveryMode, mode_of
from loom.streaming.kafka.format_settings import JsonSettings, checked_format
from loom.streaming.kafka.group_settings import Membership, check_membership
from loom.streaming.kafka.overlay import as_mapping, overlaid
from loom.streaming.kafka.reserved_properties import CONSUMER_EXTRA, PRODUCER_EXTRA, check_extra, refused_keys
from loom.streaming.kafka.security_settings import ClientConfig, KafkaSecuritySettings, MaskedSettings

__all__ = [
    "MEMBER_TRANSACTION_TIMEOUT_MS",
    "SEND_QUEUE_KBYTES",
    "START_TIMEOUT_MS",
    "TRANSACTION_TIMEOUT_MS",
    "ConsumerSettings",
    "Delivery",
    "HeaderPolicy",
    "KafkaSettings",
    "KafkaSettingsError",
    "Membership",
    "ProducerSettings",
    "broker_list",
]

#: the most records that the client returns at once
_MOST_RECORDS = 1_000_000
#: one address, several with commas, or a list
Brokers: TypeAlias = tuple[str, ...] | str
Milliseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MOST_MS)]
Settings = TypeVar("Settings")


_TRANSACTION_TIMEOUT = "transaction.timeout.ms"
#: librdkafka's default for `transaction.timeout.ms`
TRANSACTION_TIMEOUT_MS = 60_000
#: the same for a member of a group that nobody can fence: its open transaction holds up the next owner for so long
MEMBER_TRANSACTION_TIMEOUT_MS = 10_000
#: how long a start waits for what does not come
START_TIMEOUT_MS = 60_000


class KafkaSettingsError(LoomStreamingError):
    """A Kafka setting that contradicts another, or redefines what a guarantee depends on.

    >>> KafkaSettings().consumer_for("orders")
    Traceback (most recent call last):
    loom.streaming.kafka.settings.KafkaSettingsError: no consumer for 'orders': write kafka.consumer or kafka.consumers.orders
    """


class HeaderPolicy(StrEnum):
    """Which headers a producer writes: those that add information, all that are known, or none.

    >>> ProducerSettings("localhost:9092", headers="full").headers
    <HeaderPolicy.FULL: 'full'>
    """

    AUTO = "auto"  #: those that say something
    FULL = "full"  #: all that are known
    NONE = "none"  #: none


#: Bounds on the client's own memory. Its defaults allow a gigabyte, which a process with several
#: clients must not reach; these hold some hundred thousand records of 250 bytes each way.
_FETCH_QUEUE_KBYTES = 32 * 1024
#: The size of one answer of a broker beyond that: an answer in flight is accepted even if the queue is full by then.
_FETCH_BYTES = 16 * 1024 * 1024
#: The client drops the connection at a larger answer, again and again, and a record above `fetch.max.bytes` is sent anyway.
_LARGEST_ANSWER = 2_147_483_647
#: A new client connects after half of this, and so does its first answer (librdkafka 2.16; 62 instead of 22 ms with its
#: default of 100). It doubles with each failed attempt.
_RECONNECT_MS = 20
SEND_QUEUE_KBYTES = 32 * 1024
_SEND_QUEUE_RECORDS = 100_000


class ConsumerSettings(MaskedSettings):
    """One consumer; the section `kafka.consumer`.

    >>> ConsumerSettings("a:9092, b:9092", "orders", delivery="at_least_once").mode.commits_behind_mark
    True

    Args:
        brokers: `host:port`, several with commas, or a sequence.
        group_id: the consumer group.
        topics: physical topics; by default the logical name.
        auto_offset_reset: where a group starts in a topic that is new to it.
        poll_timeout_ms: the longest idle wait, 1 or more; at most 20 ms are waited.
        enable_auto_commit: without `delivery`: whether the client commits by itself.
        security: how the client identifies itself.
        extra: further properties of librdkafka.
        delivery: the guarantee.
        batch_size: the most records that a stage receives at once, 1 to 1,000,000.
        format: the wire format; `None` reads JSON and recognises an envelope.
        on_out_of_range: what happens if the log does not hold the offset of the group.
        on_topic_change: what happens if a topic is deleted, recreated or given more partitions while the flow runs.
        topic_check_interval_ms: how often the topics are checked for that, in milliseconds.
        start_timeout_ms: how long a start waits for brokers and coordinators, and a transaction for its end.
        replay_limit: for a source of dead letters: how often a record may have failed and still be written to a topic;
            `None` means no limit.
        membership: who reads which partition: `fixed`, this process all of them; `group`, the members of the consumer group
            share them, and members come and go.
        group_instance_id: under `group`: the name of this process as a static member; unique in the group.
        session_timeout_ms: under `group`: after how long a member that is gone loses its partitions, in milliseconds.
        max_poll_interval_ms: under `group`: for how long one batch may take before this process gives its partitions up, in
            milliseconds; at least `session_timeout_ms`.
        replay_steps: whether a record may enter the flow at a step that `loom dlq replay --into-step` names in its headers;
            the headers of each record are then read.

    Raises:
        ValueError: for a value that is not allowed.
    """

    brokers: Brokers
    group_id: str
    topics: tuple[str, ...] = ()
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    poll_timeout_ms: Milliseconds = 100
    enable_auto_commit: bool = True
    security: KafkaSecuritySettings | None = None
    extra: dict[str, Any] = {}
    delivery: Delivery | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=_MOST_RECORDS)] = 2000
    format: str | None = None
    on_out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    on_topic_change: Literal["warn", "stop"] = "warn"
    topic_check_interval_ms: Milliseconds = 60_000
    start_timeout_ms: Milliseconds = START_TIMEOUT_MS
    replay_limit: int | None = 5
    membership: Membership = Membership.FIXED
    group_instance_id: str | None = None
    session_timeout_ms: Milliseconds = 10_000
    max_poll_interval_ms: Milliseconds = 300_000
    replay_steps: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_addresses(self.brokers)
        if self.format is not None:
            msgspec.structs.force_setattr(self, "format", checked_format(self.format, type(self)))
        require_number("replay_limit", self.replay_limit, 0, MOST_MS)
        require_text("group_id", self.group_id)
        require_text("topics", *self.topics)
        require_number("poll_timeout_ms", self.poll_timeout_ms, 1, MOST_MS)
        require_number("batch_size", self.batch_size, 1, _MOST_RECORDS)
        require_number("topic_check_interval_ms", self.topic_check_interval_ms, 1, MOST_MS)
        require_number("start_timeout_ms", self.start_timeout_ms, 1, MOST_MS)
        require_number("session_timeout_ms", self.session_timeout_ms, 1, MOST_MS)
        require_number("max_poll_interval_ms", self.max_poll_interval_ms, 1, MOST_MS)
        require_text("group_instance_id", self.group_instance_id)
        check_membership(self.membership, self.group_instance_id, self.session_timeout_ms, self.max_poll_interval_ms)
        check_extra(self.extra, CONSUMER_EXTRA)

    @property
    def auto_commit(self) -> bool:
        """Whether the client commits by itself."""
        return self.mode.commits_by_client

    @property
    def effective_delivery(self) -> Delivery | None:
        """The delivery that applies; `None` for the auto-commit of the client, which guarantees nothing."""
        return self.mode.delivery

    @property
    def mode(self) -> DeliveryMode:
        """The delivery mode that applies, whether it was named or follows from `enable_auto_commit`."""
        return mode_of(self.delivery, auto_commit=self.enable_auto_commit)

    @property
    def shares_group(self) -> bool:
        """Whether this process is a member of its group, and shares the partitions with the others."""
        return self.membership is Membership.GROUP

    def to_confluent_config(self) -> ClientConfig:
        """The properties of the client. The client never resets an offset: the source does, and logs it."""
        return {
            "queued.max.messages.kbytes": _FETCH_QUEUE_KBYTES,
            "fetch.max.bytes": _FETCH_BYTES,
            "receive.message.max.bytes": _LARGEST_ANSWER,
            "reconnect.backoff.ms": _RECONNECT_MS,
            **self.extra,
            "bootstrap.servers": ",".join(broker_list(self.brokers)),
            "group.id": self.group_id,
            "auto.offset.reset": "error",
            "enable.auto.commit": self.auto_commit,
            "isolation.level": "read_committed",
            **(self.security.to_confluent_config() if self.security else {}),
        }


class ProducerSettings(MaskedSettings):
    """One producer; the section `kafka.producer`.

    >>> ProducerSettings("localhost:9092", format="msgpack").to_confluent_config()["acks"]
    'all'

    Args:
        brokers: `host:port`, several with commas, or a sequence.
        client_id: the name of the client in the broker's logs.
        topic: the physical topic, if it differs from the logical name.
        security: how the client identifies itself.
        extra: further properties of librdkafka.
        format: the wire format.
        headers: which headers are written.
        json: how `format: json` writes; `JsonSettings("number")` writes decimals as numbers.
        transaction_timeout_ms: under `exactly_once`: after how long the broker aborts a transaction, in milliseconds; `None`
            means 60,000, and 10,000 for members of a group without a name of their own.
        cloudevents: whether the headers of a CloudEvent are written, beside what `headers` says.

    Raises:
        ValueError: for a value that is not allowed.
    """

    brokers: Brokers
    client_id: str | None = None
    topic: str | None = None
    security: KafkaSecuritySettings | None = None
    extra: dict[str, Any] = {}
    format: str = WireFormat.JSON
    headers: HeaderPolicy = HeaderPolicy.AUTO
    json: JsonSettings = JsonSettings()
    cloudevents: bool = False
    transaction_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_addresses(self.brokers)
        require_text("topic", self.topic)
        require_number("transaction_timeout_ms", self.transaction_timeout_ms, 1, MOST_MS)
        if self.transaction_timeout_ms is not None and _TRANSACTION_TIMEOUT in self.extra:
            raise FieldError(
                "extra", f"sets {_TRANSACTION_TIMEOUT!r}, and transaction_timeout_ms is set too", "remove one of them"
            )
        msgspec.structs.force_setattr(self, "format", checked_format(self.format, type(self)))
        check_extra(self.extra, PRODUCER_EXTRA)

    def to_confluent_config(self) -> ClientConfig:
        """The properties of the client: durable, ordered, compressed, partitioned as JVM producers do."""
        return {
            "compression.type": "lz4",
            # A batch of the flow arrives at the client as one, so that waiting longer for company costs latency and saves
            # nothing under load.
            "linger.ms": 1,
            "queue.buffering.max.kbytes": SEND_QUEUE_KBYTES,
            "queue.buffering.max.messages": _SEND_QUEUE_RECORDS,
            "reconnect.backoff.ms": _RECONNECT_MS,
            **({_TRANSACTION_TIMEOUT: self.transaction_timeout_ms} if self.transaction_timeout_ms else {}),
            **self.extra,
            "bootstrap.servers": ",".join(broker_list(self.brokers)),
            **({"client.id": self.client_id} if self.client_id else {}),
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            **(self.security.to_confluent_config() if self.security else {}),
        }


class KafkaSettings(MaskedSettings):
    """The `kafka` section: a common consumer and producer, and entries by logical name that override single keys.

    A mapping inside an entry (`extra`, `security`) is merged with the common one; a list replaces it.

    >>> kafka = KafkaSettings(producer=ProducerSettings("a:9092"), producers={"orders": {"topic": "orders-v2"}})
    >>> kafka.producer_for("orders").topic, kafka.producer_for("orders").brokers
    ('orders-v2', 'a:9092')

    Args:
        producer: what all producers share: a mapping or `ProducerSettings`, of which what differs from the defaults counts.
        consumer: as `producer`, for consumers.
        producers: entries by logical name.
        consumers: as `producers`, for consumers.
    """

    producer: dict[str, Any] | None = None
    consumer: dict[str, Any] | None = None
    producers: dict[str, dict[str, Any]] = {}
    consumers: dict[str, dict[str, Any]] = {}

    if TYPE_CHECKING:

        def __init__(
            self,
            producer: Mapping[str, Any] | ProducerSettings | None = None,
            consumer: Mapping[str, Any] | ConsumerSettings | None = None,
            producers: Mapping[str, Mapping[str, Any] | ProducerSettings] = ...,
            consumers: Mapping[str, Mapping[str, Any] | ConsumerSettings] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds: tuple[tuple[str, type[MaskedSettings]], ...] = (
            ("producer", ProducerSettings),
            ("consumer", ConsumerSettings),
        )
        for role, kind in kinds:
            common, named = getattr(self, role), getattr(self, f"{role}s")
            if common is not None:
                msgspec.structs.force_setattr(self, role, as_mapping(common, kind, role))
            entries = {name: as_mapping(entry, kind, f"{role}s[{name!r}]") for name, entry in named.items()}
            msgspec.structs.force_setattr(self, f"{role}s", entries)

    def consumer_entry(self, name: str) -> dict[str, Any] | None:
        """The merged keys for the consumer of a logical name, or `None` if there are none.

        Args:
            name: the logical name.
        """
        return overlaid(self.consumer, self.consumers.get(name))

    def producer_entry(self, name: str) -> dict[str, Any] | None:
        """The merged keys for the producer of a logical name, or `None` if there are none.

        Args:
            name: the logical name.
        """
        return overlaid(self.producer, self.producers.get(name))

    def consumer_for(self, name: str, *, file: str | None = None) -> ConsumerSettings:
        """The consumer of a logical name.

        Args:
            name: the logical name.
            file: where the section was read, for messages.

        Raises:
            KafkaSettingsError: if none is configured.
            ConfigError: with everything that is wrong with it.
        """
        return _converted("consumer", name, self.consumer, self.consumers, ConsumerSettings, CONSUMER_EXTRA, file)

    def producer_for(self, name: str, *, file: str | None = None) -> ProducerSettings:
        """The producer of a logical name.

        Args:
            name: the logical name.
            file: where the section was read, for messages.

        Raises:
            KafkaSettingsError: if none is configured.
            ConfigError: with everything that is wrong with it.
        """
        return _converted("producer", name, self.producer, self.producers, ProducerSettings, PRODUCER_EXTRA, file)


def _converted(
    role: str,
    name: str,
    common: Mapping[str, Any] | None,
    named: Mapping[str, Mapping[str, Any]],
    settings: type[Settings],
    not_in_extra: Mapping[str, str | None],
    file: str | None,
) -> Settings:
    under_name = named.get(name)
    entry = overlaid(common, under_name)
    if entry is None:
        raise KafkaSettingsError(f"no {role} for {name!r}: write kafka.{role} or {render(('kafka', f'{role}s', name))}")

    def place(key: str) -> str:
        """Where a key of the entry was written: what the common section holds is not the named one's fault."""
        top = key.split(".", 1)[0].split("[", 1)[0]
        is_common = under_name is None or (top in (common or {}) and top not in under_name)
        where = f"kafka.{role}" if is_common else render(("kafka", f"{role}s", name))
        return f"{where}.{key}" if key else where

    problems = []
    extra = entry.get("extra")
    if isinstance(extra, Mapping):
        refused = refused_keys(extra, not_in_extra)
        entry["extra"] = {key: value for key, value in extra.items() if key not in refused}
        for key, remedy in refused.items():
            problems.append(ConfigProblem(file, place(render(("extra", key))), "may not be set here", remedy=remedy))
    try:
        converted = convert_section(entry, settings, file=file)
        if not problems:
            return converted
    except ConfigError as error:
        problems += [msgspec.structs.replace(problem, key=place(problem.key)) for problem in error.problems]
    raise ConfigError(problems)
