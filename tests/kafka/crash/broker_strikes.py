"""How each act on the brokers of a cluster is done to a scene. When one returns, all brokers are there again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.kafka.crash.broker_acts import BrokerAct
from tests.support.kafka_cluster import SIZE, KafkaCluster

if TYPE_CHECKING:
    from tests.kafka.crash.scene import Scene


def strike_brokers(scene: Scene, act: BrokerAct) -> None:
    """Do to a scene what its cell's fault says."""
    with _under_load(scene) as cluster:
        _ACTS[act](scene, cluster)


def _killed(which: Callable[[Scene, KafkaCluster], int]) -> Callable[[Scene, KafkaCluster], None]:
    def act(scene: Scene, cluster: KafkaCluster) -> None:
        broker = cluster.brokers[which(scene, cluster)]
        broker.kill()
        time.sleep(scene.cell.fault.away)
        broker.launch()
        cluster.await_in_sync()

    return act


def _pause_one(scene: Scene, cluster: KafkaCluster) -> None:
    broker = cluster.brokers[cluster.leader(scene.source, scene.random.randrange(SIZE))]
    broker.pause()
    time.sleep(scene.cell.fault.away)
    broker.resume()
    cluster.await_in_sync()


def _split(which: Callable[[Scene, KafkaCluster], int]) -> Callable[[Scene, KafkaCluster], None]:
    """A transaction is committed, and its coordinator cannot mark the partitions of one broker as committed.

    The flow is killed in that moment, and its successor starts while it lasts.
    """

    def act(scene: Scene, cluster: KafkaCluster) -> None:
        scene.until(f"struck at {scene.cell.fault.at}")
        silent = which(scene, cluster)
        epochs = scene.trace.count("durable")
        cluster.proxies[silent].silence()
        scene.flow.send(signal.SIGCONT)
        scene.until_more("durable", epochs)
        scene.flow.send(signal.SIGKILL)
        scene.end_of(scene.flow)
        scene.start()
        time.sleep(scene.cell.fault.away)
        cluster.proxies[silent].mend()

    return act


def _other_than_coordinator(scene: Scene, cluster: KafkaCluster) -> int:
    """A broker that leads partitions of the outputs and coordinates neither transaction nor group."""
    busy = {cluster.transaction_coordinator(scene.transactional_id), cluster.group_coordinator(scene.group)}
    return min(set(range(SIZE)) - busy)


def _roll(scene: Scene, cluster: KafkaCluster) -> None:
    for index in range(SIZE):
        cluster.restart(index)


@contextmanager
def _under_load(scene: Scene) -> Iterator[KafkaCluster]:
    cluster = scene.stand.broker
    assert isinstance(cluster, KafkaCluster)
    fault = scene.cell.fault
    if fault.at is not None:
        scene.start(f"{fault.at}:{scene.random.randint(*fault.hits)}:{int(signal.SIGSTOP)}")
    else:
        scene.start()
        scene.until("durable")
        scene.some_time(0.2, 1.5)
    try:
        yield cluster
    finally:
        cluster.mend()
    scene.mended()


_ACTS: dict[BrokerAct, Callable[[Scene, KafkaCluster], None]] = {
    BrokerAct.KILL_LEADER: _killed(lambda scene, cluster: cluster.leader(scene.source, 0)),
    BrokerAct.KILL_GROUP_COORDINATOR: _killed(lambda scene, cluster: cluster.group_coordinator(scene.group)),
    BrokerAct.KILL_TRANSACTION_COORDINATOR: _killed(
        lambda scene, cluster: cluster.transaction_coordinator(scene.transactional_id)
    ),
    BrokerAct.PAUSE_ONE: _pause_one,
    BrokerAct.SPLIT_OUTPUTS: _split(_other_than_coordinator),
    BrokerAct.SPLIT_OFFSETS: _split(lambda scene, cluster: cluster.group_coordinator(scene.group)),
    BrokerAct.ROLL: _roll,
}
