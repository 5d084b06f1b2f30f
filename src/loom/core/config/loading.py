"""From a mapping to a tree that nothing has been resolved in yet.

Called by `ConfigContext.from_dict` and `.overlaid`. A mapping that refers to nothing becomes a plain tree; OmegaConf is loaded
for the others only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.config.literals import is_literal
from loom.core.config.tree import ConfigTree, Resolvers

__all__ = ["load_mapping", "overlaid"]


def load_mapping(mapping: Mapping[Any, Any], resolvers: Resolvers) -> ConfigTree:
    """Copy a mapping. Values that are neither containers nor scalars are kept as they are.

    Raises:
        ConfigError: when a key cannot be one, or a text is no valid interpolation.
    """
    plain = _plain(mapping)
    if is_literal(plain):
        return ConfigTree(plain, None, resolvers)
    from loom.core.config.interpolated_tree import InterpolatedTree, interpolated

    return InterpolatedTree(interpolated(plain), None, resolvers)


def overlaid(tree: ConfigTree, mapping: Mapping[Any, Any]) -> ConfigTree:
    """A tree of its own with a mapping laid over another one, section by section; lists are replaced.

    Raises:
        ConfigError: as `load_mapping`.
    """
    plain = _plain(mapping)
    if type(tree) is ConfigTree and is_literal(plain) and _fits(tree.root, plain):
        return ConfigTree(_merged(tree.root, plain), tree.file, tree.resolvers)
    from loom.core.config.interpolated_tree import InterpolatedTree

    return InterpolatedTree.merged(tree, plain)


def _fits(lower: Any, upper: Any) -> bool:
    """Whether nowhere a list and a mapping lie on one another, which OmegaConf refuses."""
    if isinstance(lower, dict) and isinstance(upper, dict):
        return all(_fits(lower[key], value) for key, value in upper.items() if key in lower)
    return not (isinstance(lower, dict | list) and isinstance(upper, dict | list)) or type(lower) is type(upper)


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
