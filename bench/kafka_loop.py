"""The hand-tuned loop: what somebody who knows the client well would write for this one job, at least once."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from bench.kafka import KafkaJob, consumer_config, producer_config
from bench.orders import decode, encode, price, validate

BATCH = 2_000
COMMIT_EVERY = 1.0  # seconds


def run(job: KafkaJob) -> int:
    """Large batches in, no report per record, and once per second: flush, check, commit what is behind it."""
    failures: list[KafkaError] = []

    def failed(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(producer_config(job.bootstrap))
    consumer = Consumer(consumer_config(job.bootstrap, job.group))
    consumer.assign(_resume(consumer, job.source))
    produce, target = producer.produce, job.target
    newest: dict[int, Message] = {}  # by partition: the last message handed to the producer

    def make_durable() -> None:
        if producer.flush(30) or failures:
            raise RuntimeError(f"records were not delivered: {failures[:3]}")
        positions = [TopicPartition(job.source, part, message.offset() + 1) for part, message in newest.items()]
        if positions:
            consumer.commit(offsets=positions, asynchronous=False)

    done = 0
    due = time.monotonic() + COMMIT_EVERY
    while done < job.records:
        messages = consumer.consume(min(BATCH, job.records - done), 0.05)
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            value = encode(price(validate(decode(message.value()))))
            try:
                produce(target, value, message.key(), on_delivery=failed)
            except BufferError:
                _wait_for_room(producer)
                produce(target, value, message.key(), on_delivery=failed)
            newest[message.partition()] = message
        producer.poll(0)
        done += len(messages)
        if time.monotonic() >= due:
            make_durable()
            due = time.monotonic() + COMMIT_EVERY
    make_durable()
    consumer.close()
    return done


def _resume(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic, at the group's positions, or else at the beginning."""
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    committed = consumer.committed([TopicPartition(topic, number) for number in partitions], 30)
    for position in committed:
        if position.offset < 0:
            position.offset = OFFSET_BEGINNING
    return committed


def _wait_for_room(producer: Producer) -> None:
    """Block until the producer's queue, which is bounded, has been drained a good deal."""
    half = len(producer) // 2
    while len(producer) > half:
        producer.poll(0.1)
