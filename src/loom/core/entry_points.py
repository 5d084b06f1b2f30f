"""What installed packages offer under the groups of entry points that Loom reads: nodes, wire formats, sinks, commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["EntryPointError", "Offer", "offer_of", "offers", "only_offer"]


class EntryPointError(LoomError):
    """An entry point that cannot be used; the message names it and its package."""


class Offer(LoomFrozenStruct):
    """An entry point. `str()` of it names the package too."""

    point: EntryPoint

    @property
    def name(self) -> str:
        """The name under which the package offers something."""
        return self.point.name

    def load(self) -> Any:
        """Import what is offered.

        Raises:
            EntryPointError: it cannot be imported.
        """
        try:
            return self.point.load()
        except Exception as error:
            raise EntryPointError(
                f"{self} cannot be loaded: {type(error).__name__}: {error}; fix or uninstall the package"
            ) from error

    def __str__(self) -> str:
        point = self.point
        package = f" of the package {point.dist.name}" if point.dist is not None else ""
        return f"the entry point {point.name} = {point.value}{package} ({point.group})"


def offers(group: str) -> list[Offer]:
    """Everything that installed packages offer in a group. Reads the metadata of each package and loads none.

    >>> offers("a.group.that.nobody.knows")
    []
    """
    return [Offer(point) for point in entry_points(group=group)]


def offer_of(group: str, name: str) -> Offer | None:
    """What is offered in a group under a name; `None` where nothing is.

    >>> offer_of("a.group.that.nobody.knows", "name") is None
    True

    Args:
        group: the group of entry points.
        name: the name of the entry point.

    Raises:
        EntryPointError: two packages offer different things under the name.
    """
    return only_offer(offers(group), name)


def only_offer(among: Iterable[Offer], name: str) -> Offer | None:
    """As `offer_of`, among offers that have been read already.

    >>> only_offer(offers("a.group.that.nobody.knows"), "name") is None
    True

    Args:
        among: the offers of a group.
        name: the name of the entry point.

    Raises:
        EntryPointError: two packages offer different things under the name.
    """
    found = {str(offer): offer for offer in among if offer.name == name}
    if len(found) > 1:
        raise EntryPointError(f"{' and '.join(found)} have one name; uninstall one of the packages")
    return next(iter(found.values()), None)


def entry_points(*, group: str) -> Iterable[EntryPoint]:
    """The entry points of a group. What reads them takes 20 ms to import, and most runs need none."""
    from importlib.metadata import entry_points as installed

    return installed(group=group)
