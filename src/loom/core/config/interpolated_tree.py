"""The tree of a configuration that OmegaConf must resolve: interpolations, mandatory values, keys or values of other types.

Made by `loading.py` and `yaml_loading.py`, and imported only then: OmegaConf is a fifth of what a process loads before its
first record.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, KeyValidationError, OmegaConfBaseException

from loom.core.config.interpolation import INTERPOLATIONS, explain_failure
from loom.core.config.keys import KeyPath
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.config.resolvers import resolving_with
from loom.core.config.tree import ConfigTree

__all__ = ["InterpolatedTree", "broken", "interpolated"]


class InterpolatedTree(ConfigTree):
    """A loaded configuration whose values are resolved where they are read, so that a broken one elsewhere does no harm."""

    _mapping = DictConfig
    _sequence = ListConfig

    @classmethod
    def merged(cls, lower: ConfigTree, upper: Mapping[Any, Any]) -> InterpolatedTree:
        """A tree of its own: one tree, of either kind, with a mapping laid over it. Raises `ConfigError`."""
        root = OmegaConf.merge(lower.root, interpolated(upper))
        assert isinstance(root, DictConfig)
        return cls(root, lower.file, lower.resolvers)

    def unresolved(self) -> dict[Any, Any]:
        plain = OmegaConf.to_container(self.root, resolve=False)
        assert isinstance(plain, dict)
        return plain

    def _resolving(self) -> AbstractContextManager[None]:
        return resolving_with(self.resolvers)

    def _entry(self, container: Any, entry: Any, path: KeyPath, problems: list[ConfigProblem]) -> Any:
        try:
            return container[entry]
        except Exception as error:  # noqa: BLE001  a resolver is foreign code and may raise anything
            raw = OmegaConf.to_container(container, resolve=False)[entry]  # type: ignore[index]
            problems.append(explain_failure(error, str(raw), path, self.file, self.sections()))
            return None


def interpolated(mapping: Mapping[Any, Any], file: str | None = None) -> DictConfig:
    """An unresolved tree. Values that are neither containers nor scalars are kept as they are.

    Raises:
        ConfigError: when a key cannot be one, or a text is no valid interpolation.
    """
    try:
        created = OmegaConf.create(dict(mapping), flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        problem = broken(error, file)
    else:
        assert isinstance(created, DictConfig)
        return created
    raise ConfigError([problem])


def broken(error: OmegaConfBaseException, file: str | None) -> ConfigProblem:
    """What OmegaConf refuses, without what it stumbled over."""
    key = error.full_key or ""
    if isinstance(error, GrammarParseError):
        return ConfigProblem(file, key, "not a valid interpolation", remedy=INTERPOLATIONS)
    if isinstance(error, KeyValidationError):
        return ConfigProblem(file, key, "a key here is not a string", remedy="write it in quotes")
    return ConfigProblem(file, key, f"a value here cannot be held ({type(error).__name__})")
