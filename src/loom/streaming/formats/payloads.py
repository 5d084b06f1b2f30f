"""Whether msgspec reads and writes a payload type, and what to write where it does not. Compile time only."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect as known

from loom.core.config.shape import bare, is_union, show
from loom.core.model import LoomFrozenStruct
from loom.streaming.formats.pydantic_models import (
    PydanticMissingError,
    is_model,
    is_model_of_old,
    made_of_models,
    model_reader,
)
from loom.streaming.formats.type_nodes import strangers, type_nodes
from loom.streaming.formats.unreadable import find_unreadable
from loom.streaming.message import Tombstone, has_message_type

__all__ = ["PayloadProblem", "keys_not_text", "unreadable_payload", "unwritable_payload"]

#: a subclass of one of these is written as its base is
_PLAIN = (int, float, str, bytes, dict, list, tuple, set, frozenset)
#: what a value is decoded as where the type names no other; anything else has to be one of these
_DECODED = (dict, list, str, int, float, bool, type(None))
#: no JSON key, which is a text, becomes one of these; nor is one of them written as a key
_NO_KEYS = (
    known.BoolType,
    known.NoneType,
    known.ListType,
    known.SetType,
    known.FrozenSetType,
    known.TupleType,
    known.VarTupleType,
    known.DictType,
    known.StructType,
    known.DataclassType,
    known.TypedDictType,
    known.NamedTupleType,
)
_DECODE_IN_A_STEP = "read payload=bytes with `format: bytes` at the consumer, and decode it in the first step"


class PayloadProblem(LoomFrozenStruct):
    """Why a format cannot hold a payload type, and how to fix it.

    >>> PayloadProblem("this format has no decimals", "write the price as text").expected
    'a LoomStruct, a LoomFrozenStruct or another type that msgspec reads and writes'

    Args:
        message: what is wrong.
        remedy: what to do.
        expected: what goes with the format.
    """

    message: str
    remedy: str
    expected: str = "a LoomStruct, a LoomFrozenStruct or another type that msgspec reads and writes"


def unreadable_payload(payload: Any, *, hooked: bool = False) -> PayloadProblem | None:
    """Why msgspec cannot read this payload type, or `None`. `hooked`: a `dec_hook` makes what msgspec does not know."""
    if isinstance(payload, str):
        return PayloadProblem(
            "the payload is a text, not a type", f"write the class itself, not its name: payload={payload}"
        )
    nothing = _without_value(payload)
    if nothing is not None:
        return nothing
    if made_of_models(payload):
        return _model_problem(payload, hooked=hooked)
    try:
        msgspec.json.Decoder(payload)
    except (TypeError, NameError) as error:
        return PayloadProblem(f"this type cannot be read: {error}", _instead(payload, error))
    problem = unwritable_payload(payload, hooked=hooked, hook="dec_hook")
    if problem is not None or hooked:
        return problem
    for place, cls in strangers(known.type_info(payload)):
        if not is_model(cls) and not _may_be_decoded(cls):
            message = f"this type cannot be read: no record is decoded as a {cls.__qualname__}"
            return PayloadProblem(message, _another(place or cls, cls, "dec_hook"))
    return None


def unwritable_payload(payload: Any, *, hooked: bool = False, hook: str = "enc_hook") -> PayloadProblem | None:
    """Why msgspec cannot write this payload type, or `None`; what cannot be known beforehand is left to the run."""
    if made_of_models(payload):
        return _model_problem(payload, hooked=False)
    try:
        found = known.type_info(payload)
    except (TypeError, NameError):
        return None  # only reading needs such an annotation
    for place, node in type_nodes(found):
        cls = getattr(node, "cls", None)
        if is_model_of_old(cls):
            return _old_model(cls)
        if isinstance(node, known.DataclassType) and hasattr(cls, "__pydantic_validator__"):
            return PayloadProblem(
                f"{node.cls.__qualname__} is a dataclass of pydantic, whose checks nothing would run",
                f"let {node.cls.__qualname__} inherit from pydantic.BaseModel",
            )
        if not isinstance(node, known.CustomType) or hooked or is_model(node.cls):
            continue
        # A value of an abstract class or `object` may be something that can be written.
        if node.cls is not object and not inspect.isabstract(node.cls) and not issubclass(node.cls, _PLAIN):
            message = f"no wire format can hold the type {node.cls.__qualname__}"
            return PayloadProblem(message, _another(place or (node.cls if node.cls is payload else ""), node.cls, hook))
    return None


def _without_value(payload: Any) -> PayloadProblem | None:
    """A payload that names `None` or `Tombstone`, which is what a record without a value holds."""
    shape = bare(payload)
    arms = [bare(arm) for arm in get_args(shape)] if is_union(shape) else [shape]
    left = [arm for arm in arms if not any(arm is nothing for nothing in (None, type(None), Tombstone))]
    if len(left) == len(arms):
        return None
    return PayloadProblem(
        "a source's payload type does not name what a record without a value holds",
        f"write payload={' | '.join(map(show, left)) or '…'}: a record without a value is a Tombstone anyway",
    )


def _model_problem(payload: Any, *, hooked: bool) -> PayloadProblem | None:
    """Why pydantic cannot read a payload that is made of models, or `None`."""
    try:
        model_reader(payload)
    except PydanticMissingError as error:
        return PayloadProblem(str(error), "install the extra: pip install 'loom-streaming[pydantic]'")
    except Exception as error:  # noqa: BLE001 - pydantic raises what it likes for a schema that it cannot make
        return PayloadProblem(
            f"this type cannot be read: {str(error).splitlines()[0]}",
            "let every type in the payload be one that pydantic knows, or wrap the models in a LoomFrozenStruct",
        )
    if hooked:
        return PayloadProblem(
            "a payload that is made of pydantic models calls no dec_hook", "write a validator in the model instead"
        )
    return None


def _old_model(cls: Any) -> PayloadProblem:
    name = cls.__qualname__
    return PayloadProblem(f"{name} is a model of pydantic 1", f"let {name} inherit from the BaseModel of pydantic 2")


def keys_not_text(payload: Any) -> PayloadProblem | None:
    """Why a format whose keys are all text cannot hold this payload type, or `None`."""
    try:
        found = known.type_info(payload)
    except (TypeError, NameError):
        return None
    for place, node in type_nodes(found):
        if isinstance(node, known.DictType) and _is_no_key(node.key_type):
            named = f" of the field {place}" if place else ""
            return PayloadProblem(
                f"this type cannot be written: the keys{named} are no texts, and JSON has no others",
                f"give the mapping{named} keys of text, or make it a list of structs; format: msgpack takes any key",
            )
    return None


def _instead(payload: Any, error: Exception) -> str:
    """What to write in place of a payload of a source that msgspec cannot read."""
    shape = bare(payload)
    if is_union(shape):
        arms = get_args(shape)
        if all(map(has_message_type, arms)):
            payloads = ", ".join(map(show, arms))
            return (
                "give each a tag, class …(LoomFrozenStruct, tag=True), which tells them apart in the JSON; or write "
                f"FromMultiTypeTopic(…, payloads=({payloads})), which tells them apart by the header x-message-type"
            )
        return f"{_DECODE_IN_A_STEP}: msgspec.json.decode(value, type={show(payload)})"
    if not isinstance(get_origin(shape) or shape, type):
        return "write the type of what is read: payload=Order"
    return find_unreadable(payload, error)


def _another(place: str | type, cls: type, hook: str) -> str:
    """What to write in place of a class that no record holds; `place` names the field, or is the payload itself."""
    if isinstance(place, type) or not place:
        other = "make something else of it in a step" if hook == "enc_hook" else "give FromTopic a dec_hook"
        return f"let {cls.__qualname__} inherit from LoomFrozenStruct, or {other}"
    plain = next((base.__name__ for base in _PLAIN if issubclass(cls, base)), None)
    if plain is None and "Path" in (base.__name__ for base in cls.__mro__):
        plain = "str"
    if plain is None and hasattr(cls, "__iter__"):
        plain = "list"
    known_types = (
        f"{plain}" if plain is not None else "a type that msgspec knows (str, int, datetime, list, a struct …)"
    )
    return (
        f"give the field {place} {known_types} in place of {cls.__qualname__}, leave it out, or give the topic a {hook}"
    )


def _may_be_decoded(cls: type) -> bool:
    try:
        return any(issubclass(decoded, cls) for decoded in _DECODED)
    except TypeError:  # a protocol, for which isinstance does not work
        return False


def _is_no_key(node: Any) -> bool:
    if isinstance(node, known.UnionType):
        return all(map(_is_no_key, node.types))
    return isinstance(node, _NO_KEYS)
