"""Entries of the `kafka` section: settings objects as mappings, and one mapping merged over another.

Used by `KafkaSettings` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.model import LoomFrozenStruct

__all__ = ["as_mapping", "overlaid"]


def as_mapping(entry: Any, kind: type[LoomFrozenStruct], where: str) -> dict[str, Any]:
    """An entry as it would be written down; a copy, so it cannot be changed afterwards.

    Raises `TypeError` for what is neither a mapping nor settings of this kind.
    """
    if isinstance(entry, Mapping):
        return dict(entry)
    if isinstance(entry, kind):
        return _what_is_set(entry)
    raise TypeError(f"KafkaSettings({where}=…) takes a mapping or {kind.__name__}(…), not a {type(entry).__qualname__}")


def overlaid(common: Mapping[str, Any] | None, named: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One mapping with the keys of another on top, level by level; `None` where there is neither.

    >>> overlaid({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2]})
    {'a': {'x': 1, 'y': 3}, 'b': [2]}
    """
    if common is None and named is None:
        return None
    merged = dict(common or {})
    for key, value in (named or {}).items():
        below = merged.get(key)
        merged[key] = overlaid(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _what_is_set(settings: LoomFrozenStruct) -> dict[str, Any]:
    """The fields of a settings object that differ from their defaults."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        default: Any = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if default is msgspec.NODEFAULT or value != default:
            found[field.name] = _what_is_set(value) if isinstance(value, LoomFrozenStruct) else value
    return found
