"""Programs that copy priced orders from a topic to another until they are killed, each with the imports that it needs.

Called by the startup suite in a process that has loaded nothing else, so every import stands inside its program.
"""

from __future__ import annotations


def loop(bootstrap: str, source: str, target: str, group: str) -> None:
    """A hand-written client loop, from the group's positions, each batch delivered at once."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

    from bench.orders import decode, encode, price, validate

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1})
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "error"}
    )
    partitions = consumer.list_topics(source, 30).topics[source].partitions
    positions = consumer.committed([TopicPartition(source, number) for number in partitions], 30)
    for position in positions:
        if position.offset < 0:
            position.offset = OFFSET_BEGINNING
    consumer.assign(positions)
    while True:
        message = consumer.poll(0.02)
        if message is not None and message.error() is None:
            producer.produce(target, encode(price(validate(decode(message.value())))), message.key())
        producer.poll(0)


def loom(bootstrap: str, source: str, target: str, group: str) -> None:
    """A flow, at least once."""
    _run(bootstrap, source, target, group, "at_least_once")


def loom_exactly_once(bootstrap: str, source: str, target: str, group: str) -> None:
    """The same in transactions; the record is out when its epoch, a tenth of a second, is committed."""
    _run(bootstrap, source, target, group, "exactly_once")


def _run(bootstrap: str, source: str, target: str, group: str, delivery: str) -> None:
    from bench.orders import Order, PricedOrder, price, validate
    from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, StreamingRunner, step

    flow: StreamFlow[Order, PricedOrder] = StreamFlow(
        "bench", FromTopic("in", payload=Order), Process(step(validate), step(price)), output=IntoTopic("out")
    )
    consumer = {"brokers": [bootstrap], "group_id": group, "topics": [source], "delivery": delivery}
    producers = {"out": {"topic": target}}
    config = {
        "kafka": {"consumer": consumer, "producer": {"brokers": [bootstrap]}, "producers": producers},
        "streaming": {"runtime": {"epoch_interval_ms": 100}},
    }
    StreamingRunner.from_dict(flow, config).run()
