"""Whether a configuration means what it says: plain values that need no resolving.

Asked by `loading.py` and `yaml_loading.py` before they load what resolves interpolations.
"""

from __future__ import annotations

from typing import Any

__all__ = ["is_literal"]

_SCALARS = frozenset({int, float, bool, type(None)})
_MANDATORY = "???"


def is_literal(value: Any) -> bool:
    """Whether a value is made of dicts with texts as keys, lists and scalars, and nothing in it is to be resolved."""
    kind = type(value)
    if kind is str:
        return "${" not in value and value != _MANDATORY
    if kind is dict:
        return all(type(key) is str and is_literal(item) for key, item in value.items())
    if kind is list:
        return all(map(is_literal, value))
    return kind in _SCALARS
