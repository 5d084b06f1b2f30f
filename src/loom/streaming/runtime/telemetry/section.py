"""What a runner reads in the `observability` section of its config."""

from __future__ import annotations

from loom.core.config import ConfigContext, ConfigError
from loom.core.errors import NotSupportedYetError
from loom.core.observability import ObservabilityConfig, ObservabilityRuntime
from loom.core.observability.extras import MissingExtraError
from loom.core.observability.settings import LogSettings

__all__ = ["observers_of", "progress_interval_ms"]


def observers_of(config: ConfigContext | None) -> ObservabilityRuntime | None:
    """The observers that a config names; `None` where something is wrong with the section."""
    try:
        return ObservabilityRuntime.from_config(_section(config))
    except (ConfigError, NotSupportedYetError, MissingExtraError):
        return None


def progress_interval_ms(config: ConfigContext | None) -> int:
    """How often a run logs its progress, in milliseconds; 0: never."""
    section = _section(config)
    log = (section.log if section is not None else None) or LogSettings()
    return log.progress_interval_ms if log.enabled else 0


def _section(config: ConfigContext | None) -> ObservabilityConfig | None:
    return config.section_optional("observability", ObservabilityConfig) if config is not None else None
