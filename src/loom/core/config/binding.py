"""A declaration of "this class, built from that section", and the mixin that makes such declarations.

Made by authors of flows, kept in the plan, and turned into an instance by `ConfigContext.resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from msgspec.structs import force_setattr

from loom.core.model import LoomFrozenStruct

__all__ = ["ConfigBinding", "Configurable"]

T = TypeVar("T")


class ConfigBinding(LoomFrozenStruct, Generic[T]):
    """A class and where its constructor arguments come from. `Configurable.from_config` makes one.

    >>> ConfigBinding(Price, "pricing", {"digits": 3}).overrides
    {'digits': 3}

    Args:
        target: the class to build.
        config_path: the dotted key of a section; empty if only the overrides count.
        overrides: constructor arguments that win over the section.
    """

    target: type[T]
    config_path: str = ""
    overrides: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        # A copy: what its author does with the mapping afterwards is no part of what was declared.
        force_setattr(self, "overrides", dict(self.overrides))


class Configurable:
    """Lets a class be declared with its configuration, to be built later.

    >>> class Price(Configurable):
    ...     def __init__(self, currency: str, digits: int = 2) -> None:
    ...         self.currency, self.digits = currency, digits
    >>> from loom.core.config import ConfigContext
    >>> context = ConfigContext.from_dict({"pricing": {"currency": "EUR"}})
    >>> context.resolve(Price.from_config("pricing", digits=3)).digits
    3
    """

    @classmethod
    def from_config(cls, path: str, /, **overrides: Any) -> ConfigBinding[Self]:
        """Declare this class, built from the section at a dotted path.

        Args:
            path: the section whose keys become constructor arguments.
            overrides: constructor arguments that win over the section.
        """
        return ConfigBinding(cls, path, overrides)

    @classmethod
    def configure(cls, **overrides: Any) -> ConfigBinding[Self]:
        """Declare this class, built from these constructor arguments alone.

        Args:
            overrides: the constructor arguments.
        """
        return ConfigBinding(cls, "", overrides)
