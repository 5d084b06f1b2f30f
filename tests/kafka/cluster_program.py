"""One process of an engine's cluster, as a program runs it: `cluster_program.py MODULE:FLOW --config FILE`.

`CLUSTER_INDEX` and `CLUSTER_ADDRESSES` say which one, `CLUSTER_STATE` where its recovery store is.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from loom.core.logger import configure_logging
from loom.streaming import StreamingRunner
from loom.streaming.bytewax import BytewaxRecoverySettings, BytewaxRuntimeConfig
from loom.streaming.runtime.run_errors import PeerLostError

configure_logging()
module, _, name = sys.argv[1].partition(":")
runtime = BytewaxRuntimeConfig(
    process_id=int(os.environ["CLUSTER_INDEX"]),
    addresses=tuple(os.environ["CLUSTER_ADDRESSES"].split(",")),
    epoch_interval_ms=200,
    recovery=BytewaxRecoverySettings(os.environ["CLUSTER_STATE"], backup_interval_ms=0),
    force_shutdown_timeout_ms=15_000,
)
try:
    StreamingRunner.from_yaml(getattr(import_module(module), name), sys.argv[-1]).run(runtime=runtime)
except PeerLostError:
    sys.exit(7)
