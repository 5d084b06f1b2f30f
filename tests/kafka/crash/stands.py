"""Where a cell takes place: on the broker that cells share, or on one of its own, behind a proxy or on a small disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.kafka.crash.faults import Act, AnyAct, Fault
from tests.support.apache_kafka import ApacheKafka, Behind, free_port
from tests.support.broker import Broker
from tests.support.network_host import HostedKafka, NetworkHost
from tests.support.proxy import Proxy
from tests.support.small_disk import SmallDisk

#: holds the broker's own topics and a cell's, and is quickly filled
_DISK_MEGABYTES = 64

_OWN = frozenset({Act.KILL_BROKER, Act.PAUSE_BROKER, Act.FILL_DISK, Act.CUT, Act.SILENCE, Act.DEAFEN})
_PROXIED = frozenset({Act.CUT, Act.SILENCE, Act.DEAFEN})


@dataclass(frozen=True)
class Stand:
    """A broker as the harness reaches it, and as the flow does."""

    broker: Broker
    flow_bootstrap: str
    #: where the flow's producers connect, when not there too
    out_bootstrap: str | None = None
    shared: bool = False
    proxy: Proxy | None = None
    disk: SmallDisk | None = None
    #: one for each process, where they do not run on this one
    hosts: Sequence[NetworkHost] = ()


#: the broker on which an act is done
BrokerOf: TypeAlias = Callable[[AnyAct], Broker]


class Impossible(Exception):
    """This machine cannot do what the fault needs."""


def has_own_broker(act: AnyAct) -> bool:
    """Whether an act would harm other cells on the same broker."""
    return act in _OWN


@contextmanager
def stand_for(fault: Fault, shared: Broker, directory: Path) -> Iterator[Stand]:
    """Whatever a fault needs; raises `Impossible`."""
    act = fault.act
    if isinstance(shared, HostedKafka):
        yield Stand(shared, shared.for_hosts, shared=True, hosts=shared.network.hosts[: max(fault.members, 1)])
        return
    if not has_own_broker(act):
        yield Stand(shared, shared.bootstrap, shared=True)
        return
    with ExitStack() as stack:
        disk = proxy = behind = None
        properties = {}
        if act is Act.FILL_DISK:
            try:
                disk = stack.enter_context(SmallDisk(directory / "disk", _DISK_MEGABYTES))
            except PermissionError as problem:
                raise Impossible(str(problem)) from None
            properties["log.dirs"] = str(disk.directory / "data")
        if act in _PROXIED:
            behind = Behind(port=free_port(), proxy=free_port())
            proxy = stack.enter_context(Proxy(behind.proxy, behind.port))
        broker = stack.enter_context(ApacheKafka(directory / "kafka", properties, behind=behind))
        flow_bootstrap = broker.bootstrap if behind is None else f"127.0.0.1:{behind.proxy}"
        yield Stand(broker, flow_bootstrap, proxy=proxy, disk=disk)
