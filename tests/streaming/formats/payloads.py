"""Payload types that authors write, each with an instance and what it is as JSON. One table for every test of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
from typing_extensions import TypeAliasType

from loom.core.model import LoomFrozenStruct, LoomStruct
from loom.streaming import step

__all__ = ["PAYLOADS", "Payload", "kept"]


class Loom(LoomStruct):
    id: int


class Frozen(LoomFrozenStruct):
    id: int
    tags: tuple[str, ...] = ()


class Plain(msgspec.Struct):
    id: int


class Renamed(msgspec.Struct, rename="camel"):
    order_id: int


class Created(LoomFrozenStruct, tag="created"):
    id: int


class Deleted(LoomFrozenStruct, tag="deleted"):
    id: int
    why: str = "-"


@dataclasses.dataclass
class Data:
    id: int
    sizes: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    id: int


@attrs.define
class Attributes:
    id: int


class Fields(TypedDict):
    id: int


class Row(NamedTuple):
    id: int
    name: str = "x"


class Colour(Enum):
    RED = "red"


class Address(pydantic.BaseModel):
    street: str


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    name: Annotated[str, pydantic.Field(alias="fullName", min_length=1)]
    born: datetime | None = None
    addresses: list[Address] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Parcel(LoomFrozenStruct):
    to: Address


Id = NewType("Id", int)
Note = NewType("Note", dict[str, int])
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Payload(LoomFrozenStruct):
    """One row of the table."""

    type: Any
    made: Any
    json: bytes
    #: bytes that this type refuses
    wrong: bytes | None = None
    #: whether an envelope and a header can name it
    labelled: bool = True


PAYLOADS: dict[str, Payload] = {
    "loom struct": Payload(Loom, Loom(1), b'{"id":1}', b'{"id":"a"}'),
    "loom frozen struct": Payload(Frozen, Frozen(1, ("a",)), b'{"id":1,"tags":["a"]}', b"{}"),
    "struct": Payload(Plain, Plain(1), b'{"id":1}', b"[]"),
    "renamed struct": Payload(Renamed, Renamed(1), b'{"orderId":1}', b'{"order_id":1}'),
    "dataclass": Payload(Data, Data(1, [2]), b'{"id":1,"sizes":[2]}', b'{"id":1,"sizes":2}'),
    "dataclass with slots": Payload(Slotted, Slotted(1), b'{"id":1}', b'"a"'),
    "attrs": Payload(Attributes, Attributes(1), b'{"id":1}', b'{"id":null}'),
    "named tuple": Payload(Row, Row(1, "a"), b'[1,"a"]', b'{"id":1}'),
    "typed dict": Payload(Fields, {"id": 1}, b'{"id":1}', b'{"id":"a"}', labelled=False),
    "dict": Payload(dict, {"a": [1]}, b'{"a":[1]}', b"[]", labelled=False),
    "dict of ints": Payload(dict[str, int], {"a": 1}, b'{"a":1}', b'{"a":"b"}', labelled=False),
    "dict of structs": Payload(dict[str, Plain], {"a": Plain(1)}, b'{"a":{"id":1}}', b'{"a":1}', labelled=False),
    "list": Payload(list, [1, "a"], b'[1,"a"]', b"{}", labelled=False),
    "list of structs": Payload(list[Frozen], [Frozen(1)], b'[{"id":1,"tags":[]}]', b"[1]", labelled=False),
    "tuple": Payload(tuple[int, str], (1, "a"), b'[1,"a"]', b"[1]", labelled=False),
    "text": Payload(str, "añb", '"añb"'.encode(), b"1", labelled=False),
    "int": Payload(int, 7, b"7", b'"7"', labelled=False),
    "float": Payload(float, 1.5, b"1.5", b'"a"', labelled=False),
    "bool": Payload(bool, True, b"true", b"1", labelled=False),
    "decimal": Payload(Decimal, Decimal("1.10"), b'"1.10"', b'"a"', labelled=False),
    "datetime": Payload(datetime, datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"', b'"a"', labelled=False),
    "uuid": Payload(UUID, UUID(int=1), b'"00000000-0000-0000-0000-000000000001"', b'"a"', labelled=False),
    "enum": Payload(Colour, Colour.RED, b'"red"', b'"blue"'),
    "literal": Payload(Literal["a", "b"], "a", b'"a"', b'"c"', labelled=False),
    "any": Payload(Any, {"a": [1, None]}, b'{"a":[1,null]}', b"{", labelled=False),
    "tagged structs, the first": Payload(
        Created | Deleted, Created(1), b'{"type":"created","id":1}', b'{"type":"moved","id":1}'
    ),
    "tagged structs, the second": Payload(
        Created | Deleted, Deleted(1, "a"), b'{"type":"deleted","id":1,"why":"a"}', b'{"id":1}'
    ),
    "list of tagged structs": Payload(
        list[Created | Deleted], [Created(1)], b'[{"type":"created","id":1}]', b"[{}]", labelled=False
    ),
    "scalars": Payload(int | str, "a", b'"a"', b"[]", labelled=False),
    "new type": Payload(Id, Id(7), b"7", b'"a"', labelled=False),
    "new type of a dict": Payload(Note, {"a": 1}, b'{"a":1}', b'{"a":"b"}', labelled=False),
    "alias": Payload(TypeAliasType("Alias", Frozen), Frozen(1), b'{"id":1,"tags":[]}', b"{}"),
    "annotated": Payload(Positive, 7, b"7", b"-7", labelled=False),
    "annotated struct": Payload(Annotated[Frozen, "an order"], Frozen(1), b'{"id":1,"tags":[]}', b"{}"),
    "dict of new types": Payload(dict[str, Id], {"a": 1}, b'{"a":1}', b'{"a":"b"}', labelled=False),
    "pydantic": Payload(
        Person,
        Person(name="A", addresses=[Address(street="S")]),
        b'{"fullName":"A","born":null,"addresses":[{"street":"S"}]}',
        b'{"fullName":""}',
    ),
    "list of pydantic": Payload(list[Address], [Address(street="S")], b'[{"street":"S"}]', b"[{}]", labelled=False),
    "pydantic union": Payload(Cat | Dog, Dog(name="D"), b'{"kind":"dog","name":"D"}', b'{"kind":"cow"}'),
    "pydantic in a struct": Payload(Parcel, Parcel(Address(street="S")), b'{"to":{"street":"S"}}', b'{"to":{}}'),
}


def kept(payload: Any) -> Callable[[Any], Any]:
    """A step that is handed payloads of this type, and declares to return one."""

    def keep(found: Any) -> Any:
        return found

    keep.__annotations__.update(found=payload, **{"return": payload})
    return step(keep)
