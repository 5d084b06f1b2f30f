"""The broker for the tests of this folder: one Apache Kafka per session; all tests here are marked `kafka`.

`LOOM_TEST_KAFKA=host:port` uses a broker that is there already; tests that would break it then skip.
`LOOM_REQUIRE_KAFKA=1` makes a skip in this folder a failure, so that CI cannot pass without having proved anything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest
import yaml

from tests.kafka.crash.broker_acts import SPLITTING, BrokerAct, NetworkAct
from tests.kafka.crash.faults import AnyAct
from tests.kafka.crash.stands import BrokerOf
from tests.support.apache_kafka import ApacheKafka, Behind, free_port, why_unavailable
from tests.support.broker import Broker, ExternalKafka, FreshTopics, Proxied
from tests.support.flow_process import SOURCES
from tests.support.fork_server import ForkServer
from tests.support.kafka_cluster import KafkaCluster
from tests.support.network_host import HostedKafka, Network
from tests.support.one_way import OneWay
from tests.support.proxy import Proxy
from tests.support.waiting import LONG_S

FOLDER = Path(__file__).parent
#: (a config or its file, arguments…) -> the command of `loom` that has ended
LoomCommand: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses among the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(pytest.mark.kafka)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _skip_as_failure((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _skip_as_failure((yield))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker."""
    if bootstrap := os.environ.get("LOOM_TEST_KAFKA"):
        yield ExternalKafka(bootstrap)
        return
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three brokers, for tests in which one of them goes; each test leaves all of them running."""
    if os.environ.get("LOOM_TEST_KAFKA"):
        pytest.skip("starts brokers of its own")
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def proxied_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three more, which can be kept from reaching one of them."""
    with KafkaCluster(tmp_path_factory.mktemp("proxied-cluster"), proxied=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def hosted_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedKafka]:
    """A broker and two hosts that reach it; each test leaves them connected."""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    try:
        with Network(2) as network, HostedKafka(tmp_path_factory.mktemp("hosted"), network) as broker:
            yield broker
    except PermissionError as problem:
        pytest.skip(f"no network namespaces here: {problem}")


@pytest.fixture
def broker_of(request: pytest.FixtureRequest) -> BrokerOf:
    """The broker for an act of the crash matrix; a cluster is started when the first act needs it."""

    def found(act: AnyAct) -> Broker:
        fixture = "kafka"
        if isinstance(act, BrokerAct):
            fixture = "proxied_cluster" if act in SPLITTING else "kafka_cluster"
        elif isinstance(act, NetworkAct):
            fixture = "hosted_kafka"
        broker: Broker = request.getfixturevalue(fixture)
        return broker

    return found


@pytest.fixture
def breakable_kafka(kafka: Broker) -> Iterator[ApacheKafka]:
    """The session's broker for tests that kill, pause or restart it; whatever they leave, it runs again afterwards."""
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("a broker that LOOM_TEST_KAFKA names is not ours to break")
    yield kafka
    if kafka.alive:
        kafka.resume()
    else:
        kafka.start()


@pytest.fixture
def fresh_topics(kafka: Broker) -> FreshTopics:
    """Topics and names that no other test uses."""
    return FreshTopics(kafka)


@pytest.fixture
def one_way(kafka: Broker, fresh_topics: FreshTopics) -> OneWay:
    """A flow with topics and a group of its own."""
    return OneWay(kafka, fresh_topics)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What commands of `loom` are forked from."""
    with ForkServer() as server:
        yield server


@pytest.fixture
def loom_command(tmp_path: Path, fork_server: ForkServer) -> LoomCommand:
    """Runs a command of `loom` with a config, in a folder of its own, beside the flows of this folder."""

    def run(config: Path | Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        file = config if isinstance(config, Path) else tmp_path / "config.yaml"
        if not isinstance(config, Path):
            file.write_text(yaml.safe_dump(config))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(SOURCES), str(FOLDER))), "COLUMNS": "200"}
        command = ["loom.cli.main", *arguments, "-c", str(file)]
        process = fork_server.start(command, cwd=tmp_path, env=environment)
        out, err = process.communicate(timeout=LONG_S)
        return subprocess.CompletedProcess(command, process.wait(), out, err)

    return run


@pytest.fixture(scope="session")
def proxied(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """A broker of its own behind a proxy, for tests that disturb the connection; each mends it."""
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("starts a broker of its own")
    behind = Behind(port=free_port(), proxy=free_port())
    with (
        Proxy(behind.proxy, behind.port) as proxy,
        ApacheKafka(tmp_path_factory.mktemp("proxied"), behind=behind) as own,
    ):
        yield Proxied(FreshTopics(own), proxy, f"127.0.0.1:{behind.proxy}")


def _skip_as_failure(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LOOM_REQUIRE_KAFKA") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"LOOM_REQUIRE_KAFKA=1 allows no skip here: {reason}"
    return report
