"""FastStream with its broker of confluent-kafka and `max_workers`. Runs in an environment of its own (`environment.py`).

With several workers it commits what was read, before it is processed (it refuses other policies), so it promises less than
the others. The handler takes bytes and decodes and encodes, which spares it its own serializers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from faststream.confluent import KafkaBroker, KafkaMessage, KafkaResponse

from bench.async_kafka import AT_ONCE, WAIT_S
from bench.kafka import KafkaJob, producer_config
from bench.orders import decode, encode, price

#: the settings of the other contenders' producers that the framework has a name for
_OURS = {"acks": "acks", "enable.idempotence": "enable_idempotence", "compression.type": "compression_type"}


def run(job: KafkaJob) -> int:
    """Until every record that is there has been handled."""
    return asyncio.run(_handle_all(job))


async def _handle_all(job: KafkaJob) -> int:
    producer = producer_config(job.bootstrap)
    settings: dict[str, Any] = {name: producer[key] for key, name in _OURS.items() if key in producer}
    broker = KafkaBroker(
        job.bootstrap, linger_ms=int(producer["linger.ms"]), allow_auto_create_topics=False, logger=None, **settings
    )
    handled, over = 0, asyncio.Event()

    async def body(message: KafkaMessage) -> bytes:
        return message.body

    @broker.publisher(job.target)
    @broker.subscriber(job.source, group_id=job.group, auto_offset_reset="earliest", max_workers=AT_ONCE, decoder=body)
    async def call(value: bytes, message: KafkaMessage) -> KafkaResponse:
        order = decode(value)
        await asyncio.sleep(WAIT_S)
        nonlocal handled
        handled += 1
        if handled == job.records:
            over.set()
        return KafkaResponse(encode(price(order)), key=message.raw_message.key())

    logging.getLogger("faststream").setLevel(logging.WARNING)
    await broker.start()
    await over.wait()
    # Those at work are finished, and what was written is flushed.
    await broker.stop()
    return handled
