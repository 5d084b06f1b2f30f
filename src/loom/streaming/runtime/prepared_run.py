"""A flow that is compiled and lowered: what a runner runs, and what it hands to a caller who starts the engine himself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.async_bridge import AsyncBridge
from loom.streaming.compiler.plan import CompiledPlan
from loom.streaming.runtime.assembly import BuiltDataflow
from loom.streaming.runtime.engine import EngineName, load_engine
from loom.streaming.runtime.layout import Layout
from loom.streaming.runtime.settings import BytewaxRuntimeConfig, SupervisionSettings

if TYPE_CHECKING:
    from bytewax.dataflow import Dataflow

__all__: list[str] = []


class _PreparedStreamingRun:
    """A compiled flow, lowered and ready for the engine."""

    def __init__(
        self,
        plan: CompiledPlan,
        engine: EngineName,
        built: BuiltDataflow,
        runtime: BytewaxRuntimeConfig,
        supervision: SupervisionSettings,
        bridge: AsyncBridge,
        layout: Layout,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.engine = engine
        self.built = built
        self.runtime = runtime
        self.supervision = supervision
        #: started by the first sink that uses it
        self.bridge = bridge

    @property
    def dataflow(self) -> Dataflow:
        """What Bytewax runs. Raises `EngineMissingError` if it is not installed."""
        load_engine("bytewax")
        dataflow: Dataflow = self.built.dataflow
        return dataflow

    def shutdown(self) -> None:
        """Stop a run, and release what it holds. Idempotent."""
        self.built.shutdown()
        if not self.built.state.stop.held:
            self._close_bridge()

    def finish(self) -> None:
        """The engine has returned."""
        self.built.finish()
        self._close_bridge()

    def _close_bridge(self) -> None:
        stop = self.built.state.stop
        limit = self.runtime.force_shutdown_timeout_ms
        # The limit is that of the whole stop, of which some has passed.
        left = stop.left_s() if stop.requested or limit is None else limit / 1000
        self.bridge.shutdown(left)
