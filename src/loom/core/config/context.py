"""The one object through which everything reads its configuration.

Made by the runner, the CLI and the test kit; asked by the compiler, the transports and the steps' bindings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from loom.core.config.arguments import ArgumentGathering
from loom.core.config.binding import ConfigBinding
from loom.core.config.conversion import Conversion, convert_section
from loom.core.config.keys import KeyPath, nearest
from loom.core.config.parameters import Parameters, parameters_of
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.config.refusal import raised_by_user_code
from loom.core.config.resolvers import ConfigResolver, index_resolvers

if TYPE_CHECKING:
    from loom.core.config.tree import ConfigTree, Place

__all__ = ["ConfigContext"]

T = TypeVar("T")


class ConfigContext:
    """A loaded configuration, read section by section. Thread-safe.

    Keys are dotted paths. A name in the configuration may contain dots itself: if a key can be read in two ways, the longest
    name wins. Interpolations such as `${oc.env:NAME,default}` are resolved when they are read, and only in what is read.

    >>> from loom.core.model import LoomFrozenStruct
    >>> class Pricing(LoomFrozenStruct):
    ...     currency: str
    ...     digits: int = 2
    >>> context = ConfigContext.from_dict({"pricing": {"currency": "EUR"}})
    >>> context.section("pricing", Pricing)
    Pricing(currency='EUR', digits=2)
    """

    def __init__(self, tree: ConfigTree, file: str | None, given: Mapping[str, str] | None = None) -> None:
        self._tree = tree
        self._file = file
        #: the variables of the environment that gave keys, by dotted path
        self._given = dict(given or {})
        self._read: set[str] = set()

    @classmethod
    def from_yaml(cls, path: str | PathLike[str], *, resolvers: Iterable[ConfigResolver] = ()) -> ConfigContext:
        """Load a YAML file; an empty one is an empty configuration. Keys that the environment gives win over its own.

        Args:
            path: the file, in UTF-8.
            resolvers: interpolations of one's own, `${name:...}`.

        Raises:
            ConfigError: when the file cannot be read, is not YAML, or holds no mapping.
        """
        from loom.core.config.yaml_loading import load_yaml

        file = fspath(path)
        return cls._loaded(load_yaml(file, index_resolvers(resolvers)), file)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], *, resolvers: Iterable[ConfigResolver] = ()) -> ConfigContext:
        """Load a mapping, which is copied. Interpolations work as in a file, and keys that the environment gives win.

        Args:
            mapping: the configuration.
            resolvers: further interpolations.

        Raises:
            ConfigError: for a key that is no text, or a text that is no valid interpolation.
        """
        from loom.core.config.loading import load_mapping

        return cls._loaded(load_mapping(mapping, index_resolvers(resolvers)), None)

    @classmethod
    def _loaded(cls, tree: ConfigTree, file: str | None) -> ConfigContext:
        if not any(name.startswith("LOOM__") for name in os.environ):
            return cls(tree, file)
        from loom.core.config.environment import environment_overlay
        from loom.core.config.loading import overlaid

        overlay, given = environment_overlay(tree.unresolved(), os.environ)
        return cls(overlaid(tree, overlay), file, given)

    def overlaid(self, mapping: Mapping[str, Any]) -> ConfigContext:
        """A new context with these keys on top, merged section by section; lists are replaced.

        >>> ConfigContext.from_dict({"a": {"x": 1, "y": 2}}).overlaid({"a": {"y": 3}}).raw("a")
        {'x': 1, 'y': 3}

        Args:
            mapping: the keys.

        Raises:
            ConfigError: as `from_dict`.
        """
        from loom.core.config.loading import overlaid

        return ConfigContext(overlaid(self._tree, mapping), self._file, self._given)

    @property
    def file(self) -> str | None:
        """The file that was loaded, None for a mapping."""
        return self._file

    def has(self, key: str) -> bool:
        """Whether a key exists, even if it is empty. Does not count as reading.

        Args:
            key: a dotted path.
        """
        return self._tree.find(key) is not None

    def section(self, key: str, type: type[T]) -> T:
        """The section at `key`, checked and converted. An empty section counts as one without keys.

        Args:
            key: a dotted path.
            type: a struct, or any other annotation that msgspec knows.

        Raises:
            ConfigError: if it is absent, or with every problem in it.
        """
        place = self._find(key)
        return self._converted(self._tree.value(place), type, place)

    def section_optional(self, key: str, type: type[T]) -> T | None:
        """As `section`, and `None` if the section is absent or empty.

        Args:
            key: a dotted path.
            type: a struct, or any other annotation that msgspec knows.

        Raises:
            ConfigError: with every problem in it.
        """
        place = self._probe(key)
        value = None if place is None else self._tree.value(place)
        if place is None or value is None:
            return None
        return self._converted(value, type, place)

    def _converted(self, value: Any, type: type[T], place: Place) -> T:
        try:
            return convert_section(value, type, key=place.path, file=self._file)
        except ConfigError as error:
            if not self._given:
                raise
            # The reader has to look for such a key in the environment.
            told = [replace(p, file=self._given[p.key]) if p.key in self._given else p for p in error.problems]
        raise ConfigError(told)

    def section_or_default(self, key: str, type: type[T], default: T) -> T:
        """As `section`, and `default` if the section is absent or empty.

        Args:
            key: a dotted path.
            type: a struct, or any other annotation that msgspec knows.
            default: what to return without the section.

        Raises:
            ConfigError: with every problem in it.
        """
        section = self.section_optional(key, type)
        return default if section is None else section

    def raw(self, key: str) -> Any:
        """What is at `key`, resolved and unchecked: dicts, lists and scalars that the caller may change.

        Args:
            key: a dotted path.

        Raises:
            ConfigError: if it is absent or an interpolation in it does not resolve.
        """
        return self._tree.value(self._find(key))

    def bind(self, type: type[T], path: str) -> T:
        """An instance of a struct, or of any class with an annotated constructor, from the section at `path`.

        Args:
            type: the class.
            path: a dotted path.

        Raises:
            ConfigError: as `resolve`.
        """
        return self.resolve(ConfigBinding(type, path))

    def resolve(self, binding: ConfigBinding[T]) -> T:
        """Build what a binding declares.

        Args:
            binding: the class, its section and overrides.

        Raises:
            ConfigError: as `arguments`, and if the constructor itself raises. The exception of the constructor is reported
                without the values it was given and is not chained, because a traceback would print them.
        """
        arguments = self.arguments(binding)
        target = binding.target
        try:
            return target(**arguments)
        except Exception as error:  # noqa: BLE001  a user's constructor may raise anything
            said = raised_by_user_code(error, str(error), arguments)
        message = f"`{target.__name__}` cannot be built: {said}"
        raise ConfigError([ConfigProblem(self._file, binding.config_path or target.__name__, message)])

    def arguments(self, binding: ConfigBinding[Any]) -> dict[str, Any]:
        """The keyword arguments for the constructor of a binding: its section with the overrides on top, converted.

        Overrides that already have the annotated type are kept as they are. Arguments without an annotation accept
        anything, and a constructor with `**kwargs` any name.

        Args:
            binding: the class, its section and overrides.

        Raises:
            ConfigError: with every argument that is unknown, missing or of the wrong type.
        """
        parameters = parameters_of(binding.target)
        path, section = self._section_of(binding, parameters)
        gathering = ArgumentGathering(binding.target, parameters, path, Conversion(self._file))
        gathering.take_section(section)
        gathering.take_overrides(binding.overrides)
        gathering.check_complete()
        if gathering.conversion.problems:
            raise ConfigError(gathering.conversion.problems)
        return gathering.values

    def mark_read(self, key: str) -> None:
        """Note that the top-level section of `key` is used.

        Args:
            key: a dotted path.
        """
        longest = max((name for name in self._tree.sections() if key == name or key.startswith(f"{name}.")), default="")
        if longest:
            self._read.add(longest)

    def unread_sections(self) -> tuple[str, ...]:
        """The top-level sections that nothing has read or asked for, nor referred to from a section that was read."""
        references = self._tree.references()
        reached: set[str] = set()
        waiting = list(self._read)
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting.extend(references.get(name, ()))
        return tuple(name for name in self._tree.sections() if name not in reached)

    def nearest_section(self, name: str) -> str | None:
        """The top-level section that a missing one was most likely meant to be; `None` if it exists, or none is similar.

        >>> ConfigContext.from_dict({"kafak": {}}).nearest_section("kafka")
        'kafak'

        Args:
            name: the missing section.
        """
        sections = self._tree.sections()
        return None if name in sections else nearest(name, sections)

    def _section_of(self, binding: ConfigBinding[Any], parameters: Parameters) -> tuple[KeyPath, Mapping[Any, Any]]:
        if not binding.config_path:
            return (), {}
        place = self._find(binding.config_path)
        # What an override replaces need not resolve: a test overrides the password that only production has.
        names = parameters.by_name()
        replaced = frozenset(names[name].key if name in names else name for name in binding.overrides)
        section = self._tree.value(place, without=replaced)
        if section is None:
            return place.path, {}
        if not isinstance(section, Mapping):
            message = f"expected a mapping of arguments for `{binding.target.__name__}`, got `{type(section).__name__}`"
            raise ConfigError([ConfigProblem(self._file, binding.config_path, message)])
        return place.path, section

    def _probe(self, key: str) -> Place | None:
        self.mark_read(key)
        return self._tree.find(key)

    def _find(self, key: str) -> Place:
        place = self._probe(key)
        if place is None:
            nearest = self._tree.nearest_key(key)
            raise ConfigError([ConfigProblem(self._file, key, "there is no such section", nearest=nearest)])
        return place
