"""What msgspec calls for types that it does not know. Named here once for every format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["DecHook", "EncHook"]

#: (type, plain value) -> an instance of a type that msgspec does not know
DecHook: TypeAlias = Callable[[type, Any], Any]
#: an object of a type that msgspec does not know -> one that it does
EncHook: TypeAlias = Callable[[Any], Any]
