"""Numbers that JSON does not have: NaN and the infinities, which the encoder writes as `null`, which cannot be read back.

What a class may hold is computed once, and only fields that may hold a float are checked. Hot path of types with floats,
and of no others. No client is imported here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, get_origin, is_typeddict

import msgspec
from msgspec import inspect

from loom.core.config.shape import bare
from loom.core.model import LoomFrozenStruct
from loom.core.shown import shown
from loom.streaming.formats.type_nodes import once_per_type, type_info

__all__ = ["NULL", "FiniteNumbers", "NotFiniteError", "check_decimals"]

#: what the encoder writes for such a number; without it in the JSON there is none
NULL = b"null"
#: what holds no float whatever it holds
_PLAIN: frozenset[type] = frozenset({str, int, bool, bytes, bytearray, type(None), msgspec.Raw})


class NotFiniteError(ValueError):
    """A number that JSON does not have."""


class _Floats(LoomFrozenStruct):
    """Where instances of a class may hold a float."""

    #: fields that are a float
    always: tuple[str, ...] = ()
    #: fields that are a float or something else that is no container
    sometimes: tuple[str, ...] = ()
    #: fields that may contain one; an empty name if there are no fields
    deep: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        """Whether they hold no float at all."""
        return not self.always and not self.sometimes and not self.deep


class FiniteNumbers:
    """The parts of the payloads of one output that must be checked. Classes that `payloads` does not name are learned.

    `harmless` are the classes without a float: for all others the encoding code calls `check` with the JSON.
    """

    def __init__(self, payloads: Iterable[Any] = ()) -> None:
        self.harmless: set[type] = {*_PLAIN}
        self._floats: dict[type, _Floats] = {}
        #: by class, whether JSON has every number in an instance
        self._fits: dict[type, Callable[[Any], bool]] = {}
        by_class: dict[type, list[_Floats]] = {}
        for payload in payloads:
            hint = bare(payload)
            cls = dict if is_typeddict(get_origin(hint) or hint) else get_origin(hint) or hint
            if isinstance(cls, type):
                by_class.setdefault(cls, []).append(_floats_of(hint))
        for cls, found in by_class.items():
            if all(floats.none for floats in found):
                self.harmless.add(cls)
            elif len(found) == 1:
                self._floats[cls] = found[0]

    def test(self, cls: type, payload: str, isfinite: str) -> str | None:
        """Code that asks whether a payload of exactly this class is fit for JSON, where its own fields tell.

        It may raise for a value of a type that its field does not declare. `None` where only `check` can tell.
        """
        floats = self._floats.get(cls)
        if floats is None or floats.none or floats.deep:
            return None
        always = [f"{isfinite}({payload}.{name})" for name in floats.always]
        rest = [f"(type({payload}.{n}) is not float or {isfinite}({payload}.{n}))" for n in floats.sometimes]
        return " and ".join([*always, *rest])

    def check(self, payload: Any, value: bytes) -> None:
        """Raise `NotFiniteError` for a payload with a number that `value`, its JSON, does not hold."""
        cls = type(payload)
        floats = self._floats.get(cls)
        if floats is None:
            floats = self._floats[cls] = _floats_of(cls)
            if floats.none:
                self.harmless.add(cls)
        if not floats.deep:
            for name in (*floats.always, *floats.sometimes):
                number = getattr(payload, name)
                if number.__class__ is float and not isfinite(number):
                    break
            else:
                return
        # A number that is its field's default may have been left out, and most nulls were None.
        if NULL in value and not self._fit((payload,)):
            for place, number in _not_finite(payload):
                if isinstance(number, Decimal):
                    continue  # written as text
                raise NotFiniteError(
                    f"${place} is {number!r}, which JSON does not have. Make it None or a text, or write the topic with "
                    "format: msgpack"
                )

    def _fit(self, values: Iterable[Any]) -> bool:
        """Whether JSON has every number in some values. Asked of each payload with a `null` in its JSON."""
        fits = self._fits
        for value in values:
            cls = type(value)
            if cls is float:
                if not isfinite(value):
                    return False
            elif cls not in _PLAIN and not (fits.get(cls) or self._learn(cls))(value):
                return False
        return True

    def _learn(self, cls: type) -> Callable[[Any], bool]:
        """How to check instances of a class."""
        fit, found = self._fit, self._fits
        if issubclass(cls, dict):
            # Keys are written as text, which reads back.
            found[cls] = lambda value: fit(value.values())
        elif issubclass(cls, (list, tuple, set, frozenset)):
            found[cls] = fit
        elif issubclass(cls, Enum):
            found[cls] = lambda value: fit((value.value,))
        else:
            floats = _floats_of(cls)
            named = [name for name in (*floats.always, *floats.sometimes, *floats.deep) if name]
            names = named if named or floats.none else _names(cls)
            found[cls] = lambda value: fit([getattr(value, name, None) for name in names])
        return found[cls]


def check_decimals(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A JSON encoder that writes decimals as numbers, and raises `NotFiniteError` for one that JSON does not have."""

    def write(payload: Any) -> bytes:
        value = encode(payload)
        # Such a decimal is written as its text, most often of a field that holds no decimal.
        if b"NaN" in value or b"Infinity" in value:
            for place, number in _not_finite(payload):
                if isinstance(number, Decimal):
                    raise NotFiniteError(
                        f"${place} is {number!r}, which JSON does not have. Make it None or a text, or set "
                        "json.decimal: string"
                    )
        return value

    return write


@once_per_type
def _floats_of(hint: Any) -> _Floats:
    """Where a value of this type may hold a float. What msgspec cannot tell may hold one anywhere."""
    try:
        info = type_info(hint)
    except Exception:  # noqa: BLE001 - an annotation that cannot be resolved, or a class that only writing knows
        info = inspect.AnyType()
    if not isinstance(info, (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType)):
        return _Floats(deep=("",) if _may_hold(info, set()) else ())
    always, sometimes, deep = [], [], []
    for field in info.fields:
        if isinstance(field.type, inspect.FloatType):
            always.append(field.name)
        elif isinstance(field.type, inspect.UnionType) and all(isinstance(t, _SCALAR) for t in field.type.types):
            sometimes += [field.name] if _may_hold(field.type, set()) else []
        elif _may_hold(field.type, set()):
            deep.append(field.name)
    return _Floats(tuple(always), tuple(sometimes), tuple(deep))


_SCALAR = (inspect.FloatType, inspect.IntType, inspect.NoneType, inspect.BoolType, inspect.StrType)


def _may_hold(info: Any, seen: set[int]) -> bool:
    if isinstance(info, (inspect.FloatType, inspect.AnyType, inspect.CustomType)):
        return True
    if isinstance(info, inspect.EnumType):
        return any(isinstance(member.value, float) for member in info.cls)
    return any(_may_hold(part, seen) for part in _parts(info, seen))


def _parts(info: Any, seen: set[int]) -> Iterator[Any]:
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, tuple):
        yield from info
    elif isinstance(info, inspect.Type | inspect.Field):
        for name in info.__struct_fields__:
            if name not in ("cls", "default", "default_factory"):
                yield getattr(info, name)


def _not_finite(value: Any) -> Iterator[tuple[str, float | Decimal]]:
    """Every number in a value that JSON does not have, and where it is. Only for what has been encoded: it ends."""
    cls = type(value)
    if cls in _PLAIN:
        return
    if cls is float or cls is Decimal:
        if not (isfinite(value) if cls is float else value.is_finite()):
            yield "", value
    elif issubclass(cls, dict):
        for key, inner in value.items():
            yield from _below(f".{key}" if isinstance(key, str) else f"[{shown(key)}]", inner)
    elif issubclass(cls, (list, tuple, set, frozenset)):
        for place, inner in enumerate(value):
            yield from _below(f"[{place}]", inner)
    elif issubclass(cls, Enum):
        yield from _not_finite(value.value)
    else:
        for name in _names(cls):
            yield from _below(f".{name}", getattr(value, name, None))


def _below(place: str, value: Any) -> Iterator[tuple[str, float | Decimal]]:
    for inner, number in _not_finite(value):
        yield place + inner, number


def _names(cls: Any) -> tuple[str, ...]:
    """The fields of a class that is written by its fields; none of any other."""
    if issubclass(cls, msgspec.Struct):
        return tuple(cls.__struct_fields__)
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(field.name for field in cls.__attrs_attrs__)
    # A pydantic model, with the fields that its `extra="allow"` has let in; no other class is written by its fields.
    models = getattr(cls, "__pydantic_fields__", None)
    return (*models, "__pydantic_extra__") if isinstance(models, dict) else ()
