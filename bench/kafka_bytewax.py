"""Bytewax with the connectors it brings along, written as its guide shows it: one operator for each step.

`tail=False` ends it at the end of the topic, where throughput is measured. A recovery store and epochs of a second give it
the guarantee that the others keep, at least once: its sink flushes each batch, and its source's positions go to the store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.kafka import KafkaJob, consumer_config, producer_config
from bench.latency import LatencyJob
from bench.orders import Order, PricedOrder, decode, encode, price, validate

_OWN = {"bootstrap.servers", "group.id", "enable.auto.commit"}  # the connector sets these itself


def run(job: KafkaJob) -> int:
    """From the beginning of the topic to the end it has when a partition is read up."""
    written = 0

    def encode_order(item: tuple[bytes, PricedOrder]) -> KafkaSinkMessage[bytes, bytes]:
        nonlocal written
        written += 1
        return KafkaSinkMessage(item[0], encode(item[1]))

    _run(job, encode_order, tail=False)
    return written


def serve(job: LatencyJob) -> None:
    """Until it is killed."""
    _run(job, lambda item: KafkaSinkMessage(item[0], encode(item[1])), tail=True)


def _run(job: KafkaJob | LatencyJob, encode_order: Callable[[Any], Any], *, tail: bool) -> None:
    flow = Dataflow("orders")
    source = KafkaSource([job.bootstrap], [job.source], tail=tail, add_config=_fetching(job))
    stream: Any = op.input("input", flow, source)
    stream = op.map("decode", stream, decode_order)
    stream = op.map("validate", stream, validate_order)
    stream = op.map("price", stream, price_order)
    stream = op.map("encode", stream, encode_order)
    op.output("output", stream, KafkaSink([job.bootstrap], job.target, add_config=_producing(job)))
    with tempfile.TemporaryDirectory(prefix="loom-bench-") as folder:
        init_db_dir(Path(folder), 1)
        cli_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(folder))


def decode_order(message: KafkaSourceMessage[bytes, bytes]) -> tuple[bytes, Order]:
    return message.key, decode(message.value)


def validate_order(item: tuple[bytes, Order]) -> tuple[bytes, Order]:
    return item[0], validate(item[1])


def price_order(item: tuple[bytes, Order]) -> tuple[bytes, PricedOrder]:
    return item[0], price(item[1])


def _fetching(job: KafkaJob | LatencyJob) -> dict[str, Any]:
    config = consumer_config(job.bootstrap, job.group)
    config["log_level"] = 3  # it hands these to an admin client too, which warns of each one that only consumers know
    return {name: value for name, value in config.items() if name not in _OWN}


def _producing(job: KafkaJob | LatencyJob) -> dict[str, Any]:
    config = producer_config(job.bootstrap)
    return {name: value for name, value in config.items() if name not in _OWN}
