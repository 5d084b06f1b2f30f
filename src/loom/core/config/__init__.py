"""Reading a configuration: YAML or a mapping in, typed sections and constructor arguments out.

Called by the compiler, the runner and the CLI; names load on first use, so importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loom.core.lazy import lazy_exports

if TYPE_CHECKING:
    from loom.core.config.binding import ConfigBinding, Configurable
    from loom.core.config.context import ConfigContext
    from loom.core.config.conversion import convert_section
    from loom.core.config.problems import ConfigError, ConfigProblem
    from loom.core.config.resolvers import ConfigResolver

__all__ = [
    "ConfigBinding",
    "ConfigContext",
    "ConfigError",
    "ConfigProblem",
    "ConfigResolver",
    "Configurable",
    "convert_section",
]

__getattr__, __dir__ = lazy_exports(__name__)
