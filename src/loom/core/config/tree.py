"""The configuration as loaded: finds a place in it and resolves what lies there, and nothing else.

Called by `ConfigContext` alone. Logical names may hold dots, so places are found by walking keys, never by splitting
a path. This is the tree of a configuration without interpolations, which loads nothing; `InterpolatedTree` resolves them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from loom.core.config.keys import KeyPath, nearest
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.model import LoomFrozenStruct

__all__ = ["ConfigTree", "Place", "Resolvers"]

#: interpolations of the caller's, by name
Resolvers = Mapping[str, Callable[..., Any]]

#: The first segment of what an interpolation points at, directly or through one of OmegaConf's own resolvers.
_REFERENCE = re.compile(r"\$\{\s*(?:oc\.(?:select|dict\.keys|dict\.values)\s*:\s*)?([^\s.:,\[\]{}$'\"]+)")


class Place(LoomFrozenStruct):
    """Where a key was found: a container, the entry in it, and the segments that lead there."""

    container: Any
    entry: Any
    path: KeyPath


class ConfigTree:
    """A loaded configuration of plain dicts, lists and scalars.

    Args:
        root: the mapping of sections; not changed.
        file: the file it came from, for messages.
        resolvers: the context's own interpolations by name.
    """

    #: what mappings and lists are, in a tree of this kind
    _mapping: ClassVar[type[Any]] = dict
    _sequence: ClassVar[type[Any]] = list

    def __init__(self, root: Any, file: str | None, resolvers: Resolvers) -> None:
        self.root = root
        self.file = file
        self.resolvers = resolvers

    def sections(self) -> tuple[str, ...]:
        """The names of the top-level sections, in the order of the file."""
        return tuple(str(key) for key in self.root)

    def find(self, key: str) -> Place | None:
        """The place that a dotted key means. Where dots are ambiguous the longest name wins.

        Raises:
            ConfigError: when an interpolation on the way does not resolve.
        """
        problems: list[ConfigProblem] = []
        with self._resolving():
            place = self._descend(self.root, key.split("."), (), problems)
        if place is None and problems:
            raise ConfigError(problems)
        return place

    def nearest_key(self, key: str) -> str | None:
        """The existing dotted key that comes closest to one that was not found."""
        parent, dot, name = key.rpartition(".")
        if not dot:
            return nearest(name, self.sections())
        place = self.find(parent)
        if place is None:
            return self.nearest_key(parent)
        container = place.container[place.entry]
        close = nearest(name, map(str, container.keys())) if isinstance(container, self._mapping) else None
        return f"{parent}.{close}" if close is not None else None

    def value(self, place: Place, *, without: frozenset[str] = frozenset()) -> Any:
        """What lies at a place, resolved, as plain containers.

        Args:
            without: entries of the mapping there that are left out and not resolved.

        Raises:
            ConfigError: with every interpolation that does not resolve.
        """
        problems: list[ConfigProblem] = []
        with self._resolving():
            found = self._entry(place.container, place.entry, place.path, problems)
            value = self._resolved(found, place.path, problems, without)
        if problems:
            raise ConfigError(problems)
        return value

    def references(self) -> dict[str, frozenset[str]]:
        """For each top-level section, the sections that its interpolations point at."""
        return {
            str(section): frozenset(name for text in _texts(value) for name in _REFERENCE.findall(text))
            for section, value in self.unresolved().items()
        }

    def unresolved(self) -> dict[Any, Any]:
        """The whole tree as plain containers."""
        plain: dict[Any, Any] = self.root
        return plain

    def _resolving(self) -> AbstractContextManager[None]:
        """Within this block values may be resolved."""
        return nullcontext()

    def _descend(self, node: Any, segments: list[str], path: KeyPath, problems: list[ConfigProblem]) -> Place | None:
        entries = {str(key): key for key in node}
        for length in range(len(segments), 0, -1):
            name = ".".join(segments[:length])
            if name not in entries:
                continue
            if length == len(segments):
                return Place(node, entries[name], (*path, name))
            child = self._entry(node, entries[name], (*path, name), problems)
            if isinstance(child, self._mapping):
                place = self._descend(child, segments[length:], (*path, name), problems)
                if place is not None:
                    return place
        return None

    def _entry(self, container: Any, entry: Any, path: KeyPath, problems: list[ConfigProblem]) -> Any:
        """One value of a container, resolved; what is wrong with it is added to `problems`."""
        return container[entry]

    def _resolved(
        self, value: Any, path: KeyPath, problems: list[ConfigProblem], without: frozenset[str] = frozenset()
    ) -> Any:
        if isinstance(value, self._mapping):
            return {
                key: self._resolved(self._entry(value, key, (*path, str(key)), problems), (*path, str(key)), problems)
                for key in value
                if str(key) not in without
            }
        if isinstance(value, self._sequence):
            return [
                self._resolved(self._entry(value, i, (*path, i), problems), (*path, i), problems)
                for i in range(len(value))
            ]
        return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in a plain container that holds an interpolation."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and "${" in value:
        yield value
