"""Quix Streams, at least once, written as its guide shows it. Runs in an environment of its own (`environment.py`).

Checkpoints of a second, as the others' epochs and commits; topics hold bytes and the functions decode and encode, which
spares it its own serializers. It commits by itself and joins the group instead of taking partitions.
"""

from __future__ import annotations

from typing import Any

from quixstreams import Application

from bench.kafka import KafkaJob, consumer_config, producer_config
from bench.latency import LatencyJob
from bench.members import SESSION_MS, MembersJob
from bench.orders import decode, encode, price, validate

#: What the framework sets itself. The client that it pins knows all others of ours.
_OWN = {"bootstrap.servers", "group.id", "auto.offset.reset", "enable.auto.commit"}


def run(job: KafkaJob) -> int:
    """The records that are there, then a last checkpoint."""
    application = _application(job)
    application.run(count=job.records, collect=False)
    # It does not say how many it wrote; the suite counts them in the topic.
    return job.records


def serve(job: LatencyJob) -> None:
    """Until it is killed."""
    _application(job).run()


def serve_member(job: MembersJob) -> None:
    """A member of the group until it is told to stop."""
    named = {} if job.instance is None else {"group.instance.id": job.instance}
    _application(job, {"session.timeout.ms": SESSION_MS, **named}).run()


def _application(job: KafkaJob | LatencyJob | MembersJob, member: dict[str, Any] | None = None) -> Application:
    application = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=1.0,
        consumer_extra_config=_without_own(consumer_config(job.bootstrap, job.group)) | (member or {}),
        producer_extra_config=_without_own(producer_config(job.bootstrap)),
        auto_create_topics=False,
        loglevel="WARNING",
    )
    source = application.topic(job.source, key_deserializer="bytes", value_deserializer="bytes")
    target = application.topic(job.target, key_serializer="bytes", value_serializer="bytes")
    stream = application.dataframe(source)
    stream = stream.apply(decode).apply(validate).apply(price).apply(encode)
    stream.to_topic(target)
    return application


def _without_own(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _OWN}
