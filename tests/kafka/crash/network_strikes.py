"""How the network of one host is cut. When an act returns, the host is connected again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.kafka.crash.broker_acts import NetworkAct

if TYPE_CHECKING:
    from tests.kafka.crash.scene import Scene


def strike_network(scene: Scene, act: NetworkAct) -> None:
    """Cut the last host off; of several processes it has the last one."""
    scene.start()
    scene.until("durable")
    scene.some_time(0.2, 1.5)
    host = scene.stand.hosts[-1]
    if act is NetworkAct.LOSE_ALL:
        host.lose_all()
    elif act is NetworkAct.LOSE_REQUESTS:
        host.lose_requests()
    else:
        host.lose_answers()
    time.sleep(scene.cell.fault.away)
    host.mend()
    scene.mended()
