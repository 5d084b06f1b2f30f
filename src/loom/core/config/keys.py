"""The notation of a place in a configuration, and the known name nearest to a mistyped one.

Called when a problem is described. A place is a tuple of segments because logical names may hold dots.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["TRUTH_VALUES", "KeyPath", "nearest", "read_as", "render"]

#: Mapping keys are strings, places in a list are integers: `("kafka", "consumer", "brokers", 0)`.
KeyPath = tuple[str | int, ...]

#: why a key or a text comes out as something else
TRUTH_VALUES = "YAML reads `on`, `off`, `yes`, `no`, `true` and `false` as truth values"

_PLAIN = re.compile(r"[\w-]+")


def render(path: KeyPath) -> str:
    """Write a place the way it would be looked up by eye; names that hold dots are quoted.

    >>> render(("kafka", "consumer", "brokers", 0))
    'kafka.consumer.brokers[0]'
    >>> render(("kafka", "producers", "orders.priced", "topic"))
    'kafka.producers["orders.priced"].topic'
    """
    text = ""
    for position, segment in enumerate(path):
        if isinstance(segment, int):
            text += f"[{segment}]"
        elif position == 0:
            text = segment
        elif _PLAIN.fullmatch(segment):
            text += f".{segment}"
        else:
            text += f'["{segment}"]'
    return text


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was most likely meant to be, or None when nothing is close.

    Case and the choice between `-` and `_` are not held against a name.

    >>> nearest("brokerz", ["topics", "brokers"])
    'brokers'
    """
    by_form: dict[str, str] = {}
    for candidate in candidates:
        by_form.setdefault(_form(candidate), candidate)
    close = difflib.get_close_matches(_form(name), by_form, n=1)
    return by_form[close[0]] if close else None


def _form(name: str) -> str:
    return name.lower().replace("-", "_")


def read_as(key: object) -> str | None:
    """What to do about a key that is no text; `None` for one that is.

    >>> read_as(True)
    'YAML reads `on`, `off`, `yes`, `no`, `true` and `false` as truth values; write the key in quotes'
    """
    if isinstance(key, bool):
        return f"{TRUTH_VALUES}; write the key in quotes"
    return None if isinstance(key, str) else f"YAML reads this key as `{type(key).__name__}`; write it in quotes"
