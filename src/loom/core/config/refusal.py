"""What msgspec, or a struct's own `__post_init__`, says against a value, retold without the value.

Called by `conversion.py` for each refusal and by `context.py` when a constructor raises.
"""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from types import TracebackType
from typing import Any

import msgspec

from loom.core.config.field_error import FieldError
from loom.core.config.keys import TRUTH_VALUES, KeyPath
from loom.core.config.shape import allowed_values, show
from loom.core.redaction import mask_values

__all__ = ["raised_by_user_code", "refusal"]

_PLACE = re.compile(r" - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`$")
_SEGMENT = re.compile(r"\.(\w+)|\[(\d+)\]")
#: What to do about the two refusals that everybody meets once.
_REMEDIES = (
    (re.compile(r"expected `str`, got `bool`"), f"{TRUTH_VALUES}; write it in quotes"),
    (re.compile(r"expected `str`, got `(?:int|float)`"), "write it in quotes"),
    (
        re.compile(r"expected `object(?: \| null)?`, got `str`"),
        "write its keys below it; a colon needs a space after it",
    ),
    (
        re.compile(r"expected `array(?: \| null)?`, got `str`"),
        "write a list; out of a variable that holds `[a,b]`: `${oc.decode:${oc.env:NAME}}`",
    ),
)


def refusal(error: msgspec.ValidationError, value: Any, hint: Any) -> tuple[KeyPath, str, str | None]:
    """Where below the value the refusal lies, what it says, and a remedy where one is known."""
    text = str(error)
    place: KeyPath = ()
    if match := _PLACE.search(text):
        text = text[: match.start()]
        place = tuple(name or int(index) for name, index in _SEGMENT.findall(match["path"]))
    if isinstance(error.__cause__, FieldError):
        return (*place, error.__cause__.field), error.__cause__.message, error.__cause__.remedy
    if error.__cause__ is not None:
        return place, raised_by_user_code(error.__cause__, text, value), None
    if text.startswith(("Invalid enum value", "Invalid value")):
        # msgspec quotes the value here; what would be right is known from the type.
        return place, "not one of the allowed values", _one_of(hint)
    if not text.startswith("Expected"):
        return place, f"{text[:1].lower()}{text[1:]}; expected `{show(hint)}`", None
    text = text[:1].lower() + text[1:]
    return place, text, next((remedy for pattern, remedy in _REMEDIES if pattern.match(text)), None)


def raised_by_user_code(error: BaseException, text: str, *values: Any) -> str:
    """What an exception out of the user's own validation says, and where it was raised."""
    said = mask_values(text, *values)
    return f"{type(error).__name__}{_origin(error.__traceback__)}" + (f": {said}" if said else "")


def _origin(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    if not frames:
        return ""
    return f" raised at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}"


def _one_of(hint: Any) -> str | None:
    allowed = allowed_values(hint)
    return "one of " + ", ".join(f"`{value}`" for value in allowed) if allowed else None
