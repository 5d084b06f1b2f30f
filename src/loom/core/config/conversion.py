"""From plain containers to typed values, with every problem found on the way, not only the first.

Called by `ConfigContext` for sections and constructor arguments, and by code that overlays sections before converting.
Values are converted from the inside out: msgspec converts and checks each level once its parts are right, so that a
problem is known by its exact place and a `__post_init__` runs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from loom.core.config.keys import KeyPath, nearest, read_as, render
from loom.core.config.problems import ConfigError, ConfigProblem
from loom.core.config.refusal import raised_by_user_code, refusal
from loom.core.config.shape import (
    Field,
    bare,
    element_hints,
    fields_of,
    is_union,
    mapping_hints,
    show,
    tag_of,
)

__all__ = ["Conversion", "convert_section", "unknown_key"]

T = TypeVar("T")


def convert_section(value: Any, type: type[T], *, key: KeyPath | str = (), file: str | None = None) -> T:
    """Check plain containers against a type and convert them; texts become numbers and booleans where asked for.

    >>> from loom.core.model import LoomFrozenStruct
    >>> class Pool(LoomFrozenStruct):
    ...     size: int
    >>> convert_section({"size": "4"}, Pool, key="pool")
    Pool(size=4)

    Args:
        value: mappings, lists and scalars; objects that already are of the annotated type are kept.
        type: a struct or any other annotation that msgspec knows.
        key: where the value is, for messages.
        file: the file it comes from, for messages.

    Raises:
        ConfigError: with every unknown, missing and wrongly typed key at any depth.
    """
    conversion = Conversion(file)
    path: KeyPath = (key,) if isinstance(key, str) and key else tuple(key)
    converted = conversion.convert({} if value is None and fields_of(bare(type)) is not None else value, type, path)
    if conversion.problems:
        raise ConfigError(conversion.problems)
    return converted  # type: ignore[no-any-return]


class Conversion:
    """One pass over a section; what is wrong collects in `problems`."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.problems: list[ConfigProblem] = []

    def convert(self, value: Any, hint: Any, path: KeyPath) -> Any:
        """The converted value, or anything at all when a problem was added."""
        shape = bare(hint)
        if is_union(shape):
            return self._union(value, hint, get_args(shape), path)
        if _is_made(value, shape):
            return value
        before = len(self.problems)
        parts = self._parts(value, shape, path)
        if len(self.problems) > before:
            return None
        return self._whole(parts, hint, path)

    def add(self, path: KeyPath, message: str, *, nearest: str | None = None, remedy: str | None = None) -> None:
        """Note a problem."""
        self.problems.append(ConfigProblem(self.file, render(path), message, nearest=nearest, remedy=remedy))

    def _parts(self, value: Any, shape: Any, path: KeyPath) -> Any:
        if isinstance(value, Mapping):
            fields = fields_of(shape)
            if fields is not None:
                return self._fields(value, fields, tag_of(shape), path)
            hints = mapping_hints(shape)
            if hints is not None:
                return self._entries(value, hints, path)
        elif isinstance(value, list | tuple | set | frozenset):
            elements = element_hints(shape, len(value))
            if elements is not None:
                return [
                    self.convert(item, hint, (*path, place))
                    for place, (item, hint) in enumerate(zip(value, elements, strict=True))
                ]
        return value

    def _fields(
        self, value: Mapping[Any, Any], fields: tuple[Field, ...], tag: tuple[str, Any] | None, path: KeyPath
    ) -> dict[str, Any]:
        known = {field.key: field for field in fields}
        converted: dict[str, Any] = {}
        for key, item in value.items():
            if tag is not None and key == tag[0]:
                converted[key] = item
            elif key in known:
                converted[key] = self.convert(item, known[key].hint, (*path, key))
            else:
                self.problems.append(unknown_key(self.file, (*path, str(key)), known, "unknown key", read_as(key)))
        for field in fields:
            if field.required and field.key not in value:
                self.add((*path, field.key), f"required key is missing; expected `{show(field.hint)}`")
        return converted

    def _entries(self, value: Mapping[Any, Any], hints: tuple[Any, Any], path: KeyPath) -> dict[Any, Any]:
        converted = {}
        for key, item in value.items():
            place = (*path, str(key))
            before = len(self.problems)
            name = self._whole(key, hints[0], place, subject="key ")
            item = self.convert(item, hints[1], place)
            if len(self.problems) == before:
                converted[name] = item
        return converted

    def _union(self, value: Any, hint: Any, arms: tuple[Any, ...], path: KeyPath) -> Any:
        if value is None and type(None) in arms:
            return None
        arms = tuple(arm for arm in arms if arm is not type(None))
        if len(arms) == 1:
            return self.convert(value, arms[0], path)
        if isinstance(value, Mapping):
            arm = _object_arm(value, arms)
        elif isinstance(value, list | tuple | set | frozenset):
            sequences = [arm for arm in arms if element_hints(bare(arm), len(value)) is not None]
            arm = sequences[0] if len(sequences) == 1 else None
        else:
            arm = None
        return self._whole(value, hint, path) if arm is None else self.convert(value, arm, path)

    def _whole(self, value: Any, hint: Any, path: KeyPath, *, subject: str = "") -> Any:
        """Let msgspec convert a value whose parts are right."""
        try:
            return msgspec.convert(value, hint, strict=False, dec_hook=_custom)
        except msgspec.ValidationError as error:
            place, message, remedy = refusal(error, value, hint)
            self.add((*path, *place), subject + message, remedy=remedy)
        except TypeError:
            if fields_of(bare(hint)) is not None:
                raise  # a struct that msgspec cannot handle at all, which no configuration can fix
            return self._unknown_to_msgspec(value, hint, path)
        except Exception as error:  # noqa: BLE001  a `__post_init__` may raise anything
            self.add(path, raised_by_user_code(error, str(error), value))
        return None

    def _unknown_to_msgspec(self, value: Any, hint: Any, path: KeyPath) -> Any:
        """msgspec has no place for an annotation such as a protocol, or a class of the user's in a union."""
        shape = bare(hint)
        if is_union(shape):
            arms = get_args(shape)
            for arm in sorted(arms, key=lambda arm: not _is_instance(value, arm)):
                attempt = Conversion(self.file)
                converted = attempt.convert(value, arm, path)
                if not attempt.problems:
                    return converted
        elif mapping_hints(shape) is not None and isinstance(value, dict):
            return value  # its parts are converted
        elif isinstance(value, list) and element_hints(shape, len(value)) is not None:
            return get_origin(shape)(value) if get_origin(shape) in (tuple, set, frozenset) else value
        elif not isinstance(value, str | int | float | bytes | Mapping | list | None):
            return value  # an object that was created by the caller and cannot be checked
        kind = "null" if value is None else type(value).__name__
        self.add(path, f"expected `{show(hint)}`, got `{kind}`")
        return None


def unknown_key(
    file: str | None, path: KeyPath, known: Mapping[str, object], message: str, remedy: str | None = None
) -> ConfigProblem:
    """The problem of a key that is none of the known ones; without a remedy of its own, those are named."""
    close = nearest(str(path[-1]), known) if remedy is None else None
    if close is None and remedy is None:
        remedy = "known here: " + ", ".join(f"`{name}`" for name in known) if known else "no key is known here"
    return ConfigProblem(file, render(path), message, nearest=close, remedy=remedy)


def _custom(hint: Any, value: Any) -> Any:
    """What msgspec does not convert itself: paths. Anything else has to be of its type already."""
    if isinstance(value, str) and isinstance(hint, type) and issubclass(hint, PurePath):
        return hint(value)
    return value


def _object_arm(value: Mapping[Any, Any], arms: tuple[Any, ...]) -> Any:
    """The one alternative that a mapping is meant to be, None when msgspec has to find out."""
    structs = [arm for arm in arms if fields_of(bare(arm)) is not None]
    if len(structs) > 1:
        return next((arm for arm in structs if (tag := tag_of(bare(arm))) and value.get(tag[0]) == tag[1]), None)
    if structs:
        return structs[0]
    return next((arm for arm in arms if mapping_hints(bare(arm)) is not None), None)


def _is_made(value: Any, shape: Any) -> bool:
    """Whether this value is already an instance of the class or a subclass; scalars and containers are converted."""
    return get_origin(shape) is None and getattr(shape, "__module__", "") != "builtins" and _is_instance(value, shape)


def _is_instance(value: Any, hint: Any) -> bool:
    cls = get_origin(bare(hint)) or bare(hint)
    try:
        return isinstance(cls, type) and isinstance(value, cls)
    except TypeError:  # a protocol or a typed dict, of which nothing is an instance
        return False
