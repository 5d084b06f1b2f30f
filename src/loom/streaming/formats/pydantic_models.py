"""Pydantic models as payloads, alone or inside other types (extra `pydantic`). Pydantic is imported for models only.

A payload that is made of models (`Model`, `list[Model]`, `A | B`) is read by pydantic as a whole. A model inside a struct, a
dataclass and the like is read by pydantic at its place. Models are written with their aliases, as they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, get_args, get_origin

import msgspec

from loom.core.config.shape import bare, is_union
from loom.core.errors import LoomError
from loom.streaming.formats.hooks import DecHook, EncHook
from loom.streaming.formats.type_nodes import once_per_type, strangers, type_info

__all__ = [
    "ModelReader",
    "PydanticMissingError",
    "dec_hook_for",
    "is_model",
    "is_model_of_old",
    "json_enc_hook",
    "made_of_models",
    "model_reader",
    "plain_enc_hook",
]

_Validate: TypeAlias = Callable[[Any], Any]
_CONTAINERS = ("builtins", "collections", "collections.abc", "typing")


class PydanticMissingError(LoomError):
    """A payload is a pydantic model, and pydantic 2 is not installed."""


class ModelReader(NamedTuple):
    """How pydantic reads a payload that is made of models; both raise `msgspec.ValidationError`."""

    from_json: Callable[[bytes], Any]
    #: from what another format has decoded
    from_plain: Callable[[Any], Any]


def is_model(cls: Any) -> bool:
    """Whether a class is a pydantic model. Pydantic need not be installed to ask."""
    return _is_below(cls, "pydantic.main")


def is_model_of_old(cls: Any) -> bool:
    """Whether a class is a model of pydantic 1."""
    return _is_below(cls, "pydantic.v1.main") or (is_model(cls) and not hasattr(cls, "__pydantic_fields__"))


def made_of_models(payload: Any) -> bool:
    """Whether a payload type is models alone, or containers and unions of them."""
    return any(map(is_model, _parts(payload)))


def model_reader(payload: Any) -> ModelReader | None:
    """How pydantic reads a payload type; `None` for one that is not made of models.

    Raises:
        PydanticMissingError: pydantic 2 is not installed.
    """
    if not made_of_models(payload):
        return None
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError:
        raise PydanticMissingError("pydantic 2 is not installed, and the payload is a pydantic model") from None
    adapter = TypeAdapter(payload)

    def checked(validate: _Validate) -> _Validate:
        def read(value: Any) -> Any:
            try:
                return validate(value)
            except ValidationError as error:
                # Without the cause, whose text repeats the values.
                raise msgspec.ValidationError(_reason(error)) from None

        return read

    return ModelReader(checked(adapter.validate_json), checked(adapter.validate_python))


def dec_hook_for(payload: Any, hook: DecHook | None) -> DecHook | None:
    """The hook for a payload type: the author's, and for models inside it pydantic."""
    try:
        if not _holds_models(payload):
            return hook
    except (TypeError, NameError):
        return hook
    from pydantic import ValidationError

    def decode(cls: type, value: Any) -> Any:
        if not is_model(cls):
            return value if hook is None else hook(cls, value)
        try:
            return cls.model_validate(value)  # type: ignore[attr-defined]
        except ValidationError as error:
            raise ValueError(_reason(error)) from None

    return decode


@once_per_type
def _holds_models(payload: Any) -> bool:
    return any(is_model(cls) for _, cls in strangers(type_info(payload)))


def json_enc_hook(hook: EncHook | None) -> EncHook:
    """The hook of a JSON encoder: models write themselves, anything else is the author's to encode."""

    def encode(found: Any) -> Any:
        serializer = getattr(type(found), "__pydantic_serializer__", None)
        if serializer is not None:
            return msgspec.Raw(serializer.to_json(found, by_alias=True, fallback=hook))
        return _not_a_model(found, hook)

    return encode


def plain_enc_hook(hook: EncHook | None) -> EncHook:
    """The hook of any other encoder: as `json_enc_hook`, with models as mappings of what JSON has."""

    def encode(found: Any) -> Any:
        serializer = getattr(type(found), "__pydantic_serializer__", None)
        if serializer is not None:
            return serializer.to_python(found, mode="json", by_alias=True, fallback=hook)
        return _not_a_model(found, hook)

    return encode


def _not_a_model(found: Any, hook: EncHook | None) -> Any:
    if hook is not None:
        return hook(found)
    raise TypeError(f"Encoding objects of type {type(found).__name__} is unsupported")


def _is_below(cls: Any, module: str) -> bool:
    bases = cls.__mro__[1:] if isinstance(cls, type) else ()
    return any(base.__name__ == "BaseModel" and base.__module__ == module for base in bases)


def _parts(hint: Any) -> Iterator[Any]:
    """The types that a payload is made of: a container's elements, a union's members, or itself."""
    hint = bare(hint)
    origin = get_origin(hint)
    if is_union(hint) or (isinstance(origin, type) and origin.__module__ in _CONTAINERS):
        for part in get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _reason(error: Any) -> str:
    """What pydantic found, in one line and without the values."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{each['msg']}{_place(each['loc'])}" for each in found)


def _place(location: tuple[str | int, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return f" - at `${path}`" if path else ""
