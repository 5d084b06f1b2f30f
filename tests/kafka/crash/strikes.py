"""How each act of the table is done to a scene. When one returns, the fault is over and an instance is to go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.kafka.crash.broker_acts import BrokerAct, NetworkAct
from tests.kafka.crash.broker_strikes import strike_brokers
from tests.kafka.crash.faults import Act
from tests.kafka.crash.network_strikes import strike_network
from tests.support.apache_kafka import ApacheKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kafka.crash.scene import Scene


def strike(scene: Scene) -> None:
    """Do to a scene what its cell's fault says."""
    act = scene.cell.fault.act
    if isinstance(act, BrokerAct):
        strike_brokers(scene, act)
    elif isinstance(act, NetworkAct):
        strike_network(scene, act)
    else:
        _ACTS[act](scene)


def _signal(scene: Scene) -> None:
    fault = scene.cell.fault
    for _ in range(fault.strikes):
        if fault.at is None:
            scene.start()
            scene.some_time(0.2, 3.5)
            scene.flow.send(fault.signal)
        else:
            scene.start(_order(scene, fault.signal))
            scene.until(f"struck at {fault.at}")
        scene.end_of(scene.flow)
    scene.start()


def _signal_while_stopping(scene: Scene) -> None:
    scene.start(_order(scene, scene.cell.fault.signal))
    scene.until("polled")
    scene.some_time(0.2, 1.5)
    scene.flow.sigterm()
    scene.end_of(scene.flow)
    if scene.trace.first(f"struck at {scene.cell.fault.at}") is None:
        raise RuntimeError(f"never came to {scene.cell.fault.at}:\n{scene.flow.tail()}")
    scene.start()


def _freeze(scene: Scene) -> None:
    _stand_still(scene)
    time.sleep(scene.cell.fault.away)
    scene.flow.send(signal.SIGCONT)
    scene.mended()


def _freeze_and_succeed(scene: Scene) -> None:
    _stand_still(scene)
    wakes = time.monotonic() + scene.cell.fault.away
    older = scene.flow
    newer = scene.start_successor()
    scene.until("durable")
    time.sleep(max(0.0, wakes - time.monotonic()))
    older.send(signal.SIGCONT)
    scene.one_goes_on(older, newer)


def _second_instance(scene: Scene) -> None:
    scene.start()
    scene.until("durable")
    scene.some_time(0.2, 1.5)
    older = scene.flow
    newer = scene.start_successor()
    # Where neither is ended by the other, both are to run for a while.
    scene.until("polled")
    scene.one_goes_on(older, newer)


def _strike_one(scene: Scene) -> None:
    """In each layout one process after the other; between two layouts all are stopped in order."""
    fault = scene.cell.fault
    for number in range(len(fault.layouts)):
        if number:
            scene.some_time(0.2, 1.0)
            scene.flow.sigterm()
            scene.end_of(scene.flow)
        if fault.at is None:
            scene.start()
            scene.until("durable")
            for _ in range(fault.strikes):
                scene.some_time(0.2, 1.5)
                victim = scene.random.choice(scene.children())
                os.kill(victim, fault.signal)
                scene.gone(victim)
        else:
            scene.start(_order(scene, fault.signal))
            scene.until(f"struck at {fault.at}")
            scene.until("durable")
    scene.mended()


def _end_all(scene: Scene) -> None:
    fault = scene.cell.fault
    for _ in fault.layouts:
        scene.start()
        scene.until("durable")
        scene.some_time(0.2, 1.5)
        if fault.signal is signal.SIGKILL:
            scene.flow.kill_all()
        else:
            scene.flow.send(fault.signal)
        scene.end_of(scene.flow)
    scene.start()


def _kill_supervisor(scene: Scene) -> None:
    for _ in scene.cell.fault.layouts:
        scene.start()
        scene.until("durable")
        scene.some_time(0.2, 1.5)
        children = scene.children()
        scene.flow.sigkill()
        scene.end_of(scene.flow)
        for child in children:
            scene.gone(child)
    scene.start()


def _freeze_one(scene: Scene) -> None:
    scene.start()
    scene.until("durable")
    scene.some_time(0.2, 1.5)
    children = scene.children()
    victim = scene.random.choice(children)
    os.kill(victim, signal.SIGSTOP)
    wakes = time.monotonic() + scene.cell.fault.away
    scene.flow.sigkill()
    scene.end_of(scene.flow)
    for child in children:
        if child != victim:
            os.kill(child, signal.SIGKILL)
            scene.gone(child)
    scene.start()
    scene.until("durable")
    time.sleep(max(0.0, wakes - time.monotonic()))
    os.kill(victim, signal.SIGCONT)
    scene.gone(victim)


def _change_mode(scene: Scene) -> None:
    """A successor of the other mode takes over from one that is gone, or stands still and wakes beside it."""
    fault = scene.cell.fault
    scene.start_in("fixed")
    for mode in ("group", "fixed"):
        scene.until("durable")
        scene.some_time(0.2, 1.5)
        older = scene.flow
        older.send(fault.signal)
        if fault.signal is not signal.SIGSTOP:
            scene.end_of(older)
        if fault.signal is not signal.SIGTERM and mode == "fixed":
            # A start is refused while the group has a member, dead or not.
            time.sleep(fault.away)
        newer = scene.start_in(mode)
        scene.until("durable", newer)
        if fault.signal is signal.SIGSTOP:
            older.send(signal.SIGCONT)
            scene.one_goes_on(older, newer)
    scene.mended()


def _roll_mode(scene: Scene) -> None:
    """Of two processes one is replaced by a member, whose joining ends the other; that is replaced, too."""
    first, second = (scene.start_in("fixed", LOOM_PROCESS_ID=str(number), LOOM_PROCESSES="2") for number in range(2))
    for flow in (first, second):
        scene.until("durable", flow)
    scene.some_time(0.2, 1.5)
    second.sigterm()
    scene.end_of(second)
    member = scene.start_in("group")
    scene.end_of(first)
    other = scene.start_in("group")
    scene.until("positioned", other)
    scene.flow = member
    scene.mended()


def _strike_member(scene: Scene) -> None:
    """Those with a point are struck there; a session is waited for where nobody tells the group."""
    fault = scene.cell.fault
    victim = fault.members - 1
    if fault.at is not None:
        scene.start(_order(scene, fault.signal))
        flow = scene.members[victim]
        scene.until(f"struck at {fault.at}", flow)
        scene.end_of(flow)
        scene.start_member(victim)
    else:
        scene.start()
        for _ in range(fault.strikes):
            scene.some_time(0.2, 2.5)
            flow = scene.members[victim]
            flow.send(fault.signal)
            scene.end_of(flow)
            scene.start_member(victim)
    scene.mended()
    scene.until("positioned", scene.members[victim])


def _strike_at_bound(scene: Scene) -> None:
    scene.start(_order(scene, scene.cell.fault.signal))
    (victim,) = scene.members
    scene.until("dawdles", victim)
    scene.start_member(1)
    scene.until(f"struck at {scene.cell.fault.at}", victim)
    scene.end_of(victim)
    scene.start_member(0)
    scene.mended()


def _strike_while_revoking(scene: Scene) -> None:
    """One that has just been told to give partitions up to another one, with calls in progress."""
    scene.start(_order(scene, scene.cell.fault.signal))
    (victim,) = scene.members
    scene.until("durable", victim)
    scene.start_member(1)
    scene.until(f"struck at {scene.cell.fault.at}", victim)
    scene.end_of(victim)
    scene.start_member(0)
    scene.mended()


def _freeze_member(scene: Scene) -> None:
    fault = scene.cell.fault
    if fault.at is not None:
        scene.start(_order(scene, signal.SIGSTOP))
        flow = scene.members[-1]
        scene.until(f"struck at {fault.at}", flow)
    else:
        scene.start()
        flow = scene.members[-1]
        scene.some_time(0.2, 1.5)
        flow.send(signal.SIGSTOP)
    time.sleep(fault.away)
    flow.send(signal.SIGCONT)
    scene.mended()
    if fault.rejoins:
        scene.until("rejoined", flow)


def _join_and_leave(scene: Scene) -> None:
    scene.start()
    scene.some_time(0.2, 1.0)
    joined = scene.start_member(len(scene.members))
    scene.until("positioned", joined)
    scene.some_time(0.5, 2.0)
    joined.sigterm()
    scene.end_of(joined)
    scene.members.remove(joined)
    scene.mended()


def _kill_broker(scene: Scene) -> None:
    with _broker_fault(scene) as broker:
        broker.kill()
        time.sleep(scene.cell.fault.away)
        broker.start()


def _pause_broker(scene: Scene) -> None:
    with _broker_fault(scene) as broker:
        broker.pause()
        time.sleep(scene.cell.fault.away)
        broker.resume()


def _fill_disk(scene: Scene) -> None:
    disk = scene.stand.disk
    assert disk is not None
    with _broker_fault(scene) as broker:
        disk.fill()
        time.sleep(scene.cell.fault.away)
        disk.free()
        # A broker none of whose log directories works ends by itself; an operator makes room and starts it again.
        broker.restart()


def _cut(scene: Scene) -> None:
    proxy = scene.stand.proxy
    assert proxy is not None
    how = {Act.CUT: proxy.cut, Act.SILENCE: proxy.silence, Act.DEAFEN: proxy.deafen}
    act = scene.cell.fault.act
    assert isinstance(act, Act)
    with _broker_fault(scene):
        how[act]()
        time.sleep(scene.cell.fault.away)
        proxy.mend()


@contextmanager
def _broker_fault(scene: Scene) -> Iterator[ApacheKafka]:
    """The flow runs under load when the block is entered."""
    assert isinstance(scene.stand.broker, ApacheKafka)
    scene.start()
    scene.until("durable")
    scene.some_time(0.2, 1.5)
    yield scene.stand.broker
    scene.mended()


def _stand_still(scene: Scene) -> None:
    """SIGSTOP: where the table says so, else at a random time under load."""
    fault = scene.cell.fault
    if fault.at is None:
        scene.start()
        scene.until("polled")
        scene.some_time(0.2, 1.5)
        scene.flow.send(signal.SIGSTOP)
    else:
        scene.start(_order(scene, signal.SIGSTOP))
        scene.until(f"struck at {fault.at}")


def _order(scene: Scene, how: signal.Signals) -> str:
    fault = scene.cell.fault
    return f"{fault.at}:{scene.random.randint(*fault.hits)}:{int(how)}"


_ACTS: dict[Act, Callable[[Scene], None]] = {
    Act.SIGNAL: _signal,
    Act.SIGNAL_WHILE_STOPPING: _signal_while_stopping,
    Act.FREEZE: _freeze,
    Act.FREEZE_AND_SUCCEED: _freeze_and_succeed,
    Act.SECOND_INSTANCE: _second_instance,
    Act.STRIKE_ONE: _strike_one,
    Act.END_ALL: _end_all,
    Act.KILL_SUPERVISOR: _kill_supervisor,
    Act.FREEZE_ONE: _freeze_one,
    Act.CHANGE_MODE: _change_mode,
    Act.ROLL_MODE: _roll_mode,
    Act.STRIKE_MEMBER: _strike_member,
    Act.STRIKE_AT_BOUND: _strike_at_bound,
    Act.STRIKE_WHILE_REVOKING: _strike_while_revoking,
    Act.FREEZE_MEMBER: _freeze_member,
    Act.JOIN_AND_LEAVE: _join_and_leave,
    Act.KILL_BROKER: _kill_broker,
    Act.PAUSE_BROKER: _pause_broker,
    Act.FILL_DISK: _fill_disk,
    Act.CUT: _cut,
    Act.SILENCE: _cut,
    Act.DEAFEN: _cut,
}
