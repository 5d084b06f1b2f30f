"""Made-up payloads decode as the type that they are made for, whatever it holds."""

from __future__ import annotations

import datetime
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest

from loom.cli.generate import CannotGenerateError, payload_maker
from loom.core.model import LoomFrozenStruct


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: float


class Named(TypedDict, total=False):
    name: str


@dataclass
class Plain:
    a: int
    b: str = "b"


class Leaf(LoomFrozenStruct, tag=True):
    value: int


class Tree(LoomFrozenStruct, tag=True):
    children: list[Leaf | Tree]


class Rows(LoomFrozenStruct, array_like=True):
    a: int
    b: str


class Checked(LoomFrozenStruct):
    a: int

    def __post_init__(self) -> None:
        if self.a % 2:
            raise ValueError("odd")


class Everything(LoomFrozenStruct, rename="camel"):
    whole_number: Annotated[int, msgspec.Meta(ge=-5, lt=3)]
    steps: Annotated[int, msgspec.Meta(multiple_of=7)]
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    text: Annotated[str, msgspec.Meta(min_length=12, max_length=14)]
    few: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)]
    colour: Colour
    literal: Literal["a", 3]
    moment: datetime.datetime
    zoned: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    day: datetime.date
    time: datetime.time
    span: datetime.timedelta
    identity: uuid.UUID
    price: Decimal
    raw: bytes
    point: Point
    named: Named
    plain: Plain
    rows: Rows
    tree: Tree
    mapping: dict[str, tuple[int, ...]]
    several: set[int]
    anything: Any
    perhaps: int | None
    left_out: str = "x"


TYPES = [Everything, Tree, Leaf | Tree, dict[str, int], Plain, Named, Checked, int, str, list[Point], Any]


@pytest.mark.parametrize("payload", TYPES)
def test_what_is_made_up_decodes_as_its_type(payload: Any) -> None:
    make = payload_maker(payload, seed=3)
    decoder = msgspec.json.Decoder(payload)
    made = [make() for _ in range(100)]
    for value in made:
        decoder.decode(value)
    again = payload_maker(payload, seed=3)
    assert [again() for _ in range(100)] == made


def test_optional_parts_are_there_at_times_and_missing_at_others() -> None:
    make = payload_maker(Everything)
    found = [msgspec.json.decode(make(), type=Everything) for _ in range(200)]
    assert {one.perhaps is None for one in found} == {True, False}
    assert len({one.left_out for one in found}) > 1
    assert {one.colour for one in found} == set(Colour)


class Opaque:
    pass


class Never(LoomFrozenStruct):
    a: int

    def __post_init__(self) -> None:
        raise ValueError("never")


@pytest.mark.parametrize("payload", [Opaque, list[Opaque], Never, Annotated[str, msgspec.Meta(pattern="^[0-9]{9}$")]])
def test_what_cannot_be_made_up_says_so_at_once(payload: Any) -> None:
    with pytest.raises(CannotGenerateError, match="--input FILE"):
        payload_maker(payload)
