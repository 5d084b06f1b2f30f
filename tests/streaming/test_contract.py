"""The names that authors import are there, and importing them costs next to nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import loom.streaming
from loom.core.errors import NotSupportedYetError

AUTHORING = (
    "Message",
    "MessageMeta",
    "ErrorKind",
    "ErrorEnvelope",
    "ErrorMessage",
    "ErrorMessageMeta",
    "Process",
    "StreamFlow",
    "ErrorRoute",
    "FromTopic",
    "IntoTopic",
    "PartitionPolicy",
    "PartitionStrategy",
    "StreamShape",
    "Step",
    "RecordStep",
    "BatchStep",
    "ExpandStep",
    "Fork",
    "Selector",
    "Predicate",
    "msg",
    "payload",
    "IntoSink",
    "SinkPartition",
    "Tombstone",
    "Retry",
    "RetryAfter",
    "RateLimit",
    "CircuitBreaker",
    "step",
    "compile_flow",
    "StreamingRunner",
)
COMPILER = ("compile_flow", "CompiledPlan", "CompilationError")
KAFKA = (
    "KafkaSettings",
    "ConsumerSettings",
    "ProducerSettings",
    "KafkaSecuritySettings",
    "KafkaRecord",
    "TopicPartition",
    "MessageEnvelope",
    "MessageMetadata",
    "MessageDescriptor",
    "MsgspecCodec",
    "DecodeOk",
    "DecodeError",
    "KafkaConsumer",
    "KafkaProducer",
    "EmbeddedBroker",
)
PACKAGES = {"loom.streaming": AUTHORING, "loom.streaming.compiler": COMPILER, "loom.streaming.kafka": KAFKA}
HEAVY = ("bytewax", "confluent_kafka", "omegaconf", "structlog", "anyio", "asyncio", "yaml", "rich")


@pytest.mark.parametrize(("package", "names"), PACKAGES.items(), ids=PACKAGES)
def test_every_name_of_the_contract_is_public(package: str, names: tuple[str, ...]) -> None:
    module = importlib.import_module(package)
    assert set(names) <= set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_can_be_had_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_is_the_same_object_wherever_it_is_imported_from(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        found = getattr(module, name)
        home = getattr(found, "__module__", package)
        assert home == package or getattr(importlib.import_module(home), name, found) is found


@pytest.mark.parametrize(
    "name",
    [
        "IntoTable",
        "FromMongoCDC",
        "MongoInsert",
        "MongoChangeEvent",
    ],
)
def test_a_name_that_comes_later_says_so_when_it_is_imported(name: str) -> None:
    with pytest.raises(NotSupportedYetError, match=f"{name} is not supported yet"):
        exec(f"from loom.streaming import {name}")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    return set(run.stdout.split())


def test_importing_the_package_loads_neither_engine_nor_client() -> None:
    assert loaded_after("import loom.streaming, loom.streaming.compiler, loom.streaming.kafka") == set()


def test_declaring_a_flow_loads_neither_engine_nor_client() -> None:
    runner = {"StreamingRunner"}
    names = ", ".join(name for name in loom.streaming.__all__ if name not in runner)
    declare = (
        f"from loom.streaming import {names}\n"
        "from loom.core.model import LoomFrozenStruct\n"
        "class Order(LoomFrozenStruct):\n    id: int\n"
        "@step\ndef keep(order: Order) -> Order:\n    return order\n"
        "flow = StreamFlow('orders', FromTopic('a', Order), Process(keep), IntoTopic('b'))\n"
    )
    assert loaded_after(declare) == set()


def test_compiling_a_flow_loads_neither_engine_nor_client() -> None:
    compiled = (
        "from tests.streaming.orders import CONFIG, flow, price\n"
        "from loom.streaming import compile_flow\n"
        "compile_flow(flow(price), config=CONFIG).explain()"
    )
    assert not loaded_after(compiled) & {"bytewax", "confluent_kafka", "structlog", "anyio"}
