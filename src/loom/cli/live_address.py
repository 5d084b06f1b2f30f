"""The live page of a flow on an in-process broker: on where the extra is installed, and its address for the screen."""

from __future__ import annotations

from loom.core.config import ConfigContext
from loom.core.observability import ObservabilityConfig, ObservabilityRuntime
from loom.core.observability.extras import MissingExtraError, check_prometheus
from loom.core.observability.settings import PrometheusEndpoint

__all__ = ["LivePage"]


class LivePage:
    """Observers that serve a flow on this machine alone; none without the extra `prometheus`.

    `config` may name a port; where it is taken another free one is used.
    """

    def __init__(self, config: ConfigContext | None = None) -> None:
        self.observers = ObservabilityRuntime.noop()
        #: what is missing, if something is
        self.missing: str | None = None
        try:
            check_prometheus()
        except MissingExtraError:
            self.missing = "the live page needs the extra: pip install 'loom-streaming[prometheus]'"
            return
        # The package of an extra.
        from loom.core.observability.prometheus_observer import PrometheusObserver

        self._observer = PrometheusObserver(PrometheusEndpoint(port=_port(config)))
        self.observers = ObservabilityRuntime([self._observer])

    @property
    def address(self) -> str | None:
        """Where the page is; `None` while it is not served."""
        found = self._observer.address if self.missing is None else None
        return f"{found}/" if found is not None else None


def _port(config: ConfigContext | None) -> int:
    section = config.section_optional("observability", ObservabilityConfig) if config is not None else None
    named = section.prometheus if section is not None else None
    return (named.config if named is not None else PrometheusEndpoint()).port
