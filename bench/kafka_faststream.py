"""FastStream with `max_workers`, on either of its clients. Runs in an environment of its own (`environment.py`).

With several workers it commits what was read before it is processed, and refuses any other policy, so it promises less than
the others. The handler takes bytes and decodes and encodes, which spares it its own serializers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faststream import confluent, kafka

from bench.async_kafka import AT_ONCE, WAIT_S
from bench.kafka import KafkaJob, producer_config
from bench.orders import decode, encode, price

#: the settings of the other contenders' producers that the framework has a name for
_OURS = {"acks": "acks", "enable.idempotence": "enable_idempotence", "compression.type": "compression_type"}


def run(job: KafkaJob) -> int:
    """On confluent-kafka, until every record that is there has been handled."""
    return asyncio.run(_handle_all(job, confluent, lambda record: record.key()))


def run_aiokafka(job: KafkaJob) -> int:
    """The same on aiokafka."""
    return asyncio.run(_handle_all(job, kafka, lambda record: record.key))


async def _handle_all(job: KafkaJob, framework: Any, key_of: Callable[[Any], bytes]) -> int:
    producer = producer_config(job.bootstrap)
    settings: dict[str, Any] = {name: producer[of] for of, name in _OURS.items() if of in producer}
    broker = framework.KafkaBroker(job.bootstrap, linger_ms=int(producer["linger.ms"]), logger=None, **settings)
    handled, over = 0, asyncio.Event()

    async def as_it_is(message: Any) -> tuple[bytes, bytes]:
        return key_of(message.raw_message), message.body

    @broker.publisher(job.target)
    @broker.subscriber(
        job.source, group_id=job.group, auto_offset_reset="earliest", max_workers=AT_ONCE, decoder=as_it_is
    )
    async def call(record: Any) -> Any:
        nonlocal handled
        order = decode(record[1])
        await asyncio.sleep(WAIT_S)
        handled += 1
        if handled == job.records:
            over.set()
        return framework.KafkaResponse(encode(price(order)), key=record[0])

    await broker.start()
    await over.wait()
    # Those at work are finished, and what was written is flushed.
    await broker.stop()
    return handled
