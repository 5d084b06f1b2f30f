"""Sections are checked against their types as a whole: every problem at once, at its place, without its value."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigError, ConfigProblem, convert_section
from loom.core.model import LoomFrozenStruct


class Security(LoomFrozenStruct):
    protocol: Literal["SSL", "SASL_SSL"]
    sasl_password: str | None = None


class Consumer(LoomFrozenStruct):
    brokers: tuple[str, ...]
    group_id: str
    batch_size: Annotated[int, msgspec.Meta(gt=0)] = 1000
    enable_auto_commit: bool = True
    security: Security | None = None


class Kafka(LoomFrozenStruct):
    consumer: Consumer | None = None
    consumers: dict[str, Consumer] = {}
    fallbacks: list[Consumer] = []
    pair: tuple[Consumer, Security] | None = None
    by_name: Mapping[str, Security | None] = {}


GOOD: dict[str, Any] = {"brokers": ["a:9092"], "group_id": "orders"}


def problems_of(value: Any, kind: Any, key: str = "s") -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        convert_section(value, kind, key=key)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.problems


def only_problem(value: Any, kind: Any) -> ConfigProblem:
    (problem,) = problems_of(value, kind)
    return problem


def test_texts_become_what_the_type_asks_for() -> None:
    section = {**GOOD, "batch_size": "5", "enable_auto_commit": "false"}
    assert convert_section(section, Consumer) == Consumer(("a:9092",), "orders", 5, False)


def test_all_problems_of_a_section_are_reported_together() -> None:
    section = {"broker": ["a"], "batch_size": "many", "security": {"protocol": "TLS", "sasl_pasword": "x"}}
    found = {problem.key: problem.message for problem in problems_of(section, Consumer, "kafka")}
    assert set(found) == {
        "kafka.broker",
        "kafka.brokers",
        "kafka.group_id",
        "kafka.batch_size",
        "kafka.security.protocol",
        "kafka.security.sasl_pasword",
    }
    assert found["kafka.group_id"] == "required key is missing; expected `str`"


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    problem = only_problem({**GOOD, "batchsize": 3}, Consumer)
    assert (problem.key, problem.message, problem.nearest) == ("s.batchsize", "unknown key", "batch_size")


def test_an_unknown_key_like_no_other_names_all_that_are_known() -> None:
    problem = only_problem({**GOOD, "zzz": 3}, Consumer)
    assert problem.nearest is None
    assert problem.remedy is not None
    assert "`group_id`" in problem.remedy


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"consumer": {**GOOD, "typo": 1}}, "s.consumer.typo"),
        ({"consumers": {"orders.raw": {**GOOD, "typo": 1}}}, 's.consumers["orders.raw"].typo'),
        ({"fallbacks": [GOOD, {**GOOD, "typo": 1}]}, "s.fallbacks[1].typo"),
        ({"pair": [GOOD, {"protocol": "SSL", "typo": 1}]}, "s.pair[1].typo"),
        ({"by_name": {"x": {"protocol": "SSL", "typo": 1}}}, "s.by_name.x.typo"),
        ({"consumer": {**GOOD, "security": {"protocol": "SSL", "typo": 1}}}, "s.consumer.security.typo"),
    ],
)
def test_an_unknown_key_is_found_wherever_a_struct_lies(section: dict[str, Any], place: str) -> None:
    assert only_problem(section, Kafka).key == place


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"consumer": {**GOOD, "brokers": ["a", 3]}}, "s.consumer.brokers[1]"),
        ({"consumers": {"a.b": {**GOOD, "batch_size": []}}}, 's.consumers["a.b"].batch_size'),
        ({"by_name": {"x": 3}}, "s.by_name.x"),
        ({"pair": [GOOD]}, "s.pair"),
    ],
)
def test_a_wrong_type_is_named_by_its_place(section: dict[str, Any], place: str) -> None:
    assert only_problem(section, Kafka).key == place


def test_a_number_where_text_is_expected_comes_with_a_remedy() -> None:
    problem = only_problem({**GOOD, "group_id": 2024}, Consumer)
    assert problem.message == "expected `str`, got `int`"
    assert problem.remedy == "write it in quotes"
    assert problem.describe() == "s.group_id: expected `str`, got `int` (write it in quotes)"


def test_a_bound_is_said_without_the_value() -> None:
    problem = only_problem({**GOOD, "batch_size": -77}, Consumer)
    assert problem.message == "expected `int` >= 1"
    assert "77" not in problem.describe()


def test_a_choice_is_said_without_the_value() -> None:
    problem = only_problem({"protocol": "hunter2"}, Security)
    assert problem.remedy == "one of `SSL`, `SASL_SSL`"
    assert "hunter2" not in problem.describe()


def test_a_key_of_a_mapping_has_to_be_of_its_type_too() -> None:
    problem = only_problem({2024: "x"}, dict[str, str])
    assert (problem.key, problem.message) == ("s.2024", "key expected `str`, got `int`")
    assert convert_section({"1": "2"}, dict[int, int]) == {1: 2}


def test_an_empty_section_counts_as_one_without_keys() -> None:
    assert convert_section(None, Kafka) == Kafka()
    assert only_problem(None, Security).key == "s.protocol"


def test_null_is_taken_where_it_is_allowed_only() -> None:
    assert convert_section({"consumer": None}, Kafka).consumer is None
    assert only_problem({"fallbacks": None}, Kafka).key == "s.fallbacks"


def test_values_that_are_of_their_type_already_are_kept() -> None:
    security = Security("SSL")
    assert convert_section({**GOOD, "security": security}, Consumer).security is security


class Renamed(LoomFrozenStruct, rename="camel"):
    group_id: str


def test_renamed_fields_are_known_by_the_name_in_the_file() -> None:
    assert convert_section({"groupId": "x"}, Renamed) == Renamed("x")
    assert {problem.key for problem in problems_of({"group_id": "x"}, Renamed)} == {"s.group_id", "s.groupId"}


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    verbose: bool


def test_dataclasses_and_typed_dicts_are_checked_alike() -> None:
    assert convert_section({"x": "1"}, Point) == Point(1)
    assert only_problem({"x": 1, "z": 2}, Point).key == "s.z"
    assert convert_section({"verbose": "true"}, Options) == {"verbose": True}
    assert only_problem({"verbos": True}, Options).nearest == "verbose"


class File(LoomFrozenStruct, tag="file", tag_field="type"):
    path: Path


class Table(LoomFrozenStruct, tag="table", tag_field="type"):
    columns: Sequence[str] = ()


def test_of_several_structs_the_tagged_one_is_meant() -> None:
    assert convert_section({"type": "table", "columns": ["a"]}, File | Table) == Table(["a"])  # type: ignore[arg-type]
    assert only_problem({"type": "table", "colums": []}, File | Table).nearest == "columns"
    assert "table" in (only_problem({"type": "hunter2"}, File | Table).remedy or "")
    assert convert_section({"type": "file", "path": "/a"}, File) == File(Path("/a"))


def test_a_struct_among_other_alternatives_is_checked_too() -> None:
    assert only_problem({"protocl": "SSL", "protocol": "SSL"}, Security | str).nearest == "protocol"
    assert convert_section("none", Security | str) == "none"  # type: ignore[arg-type]


class Row(LoomFrozenStruct, array_like=True):
    name: str
    size: int


NamedSecurity = NewType("NamedSecurity", Security)


def test_structs_are_known_under_other_names_and_in_other_forms() -> None:
    assert only_problem({"protocol": "SSL", "typo": 1}, NamedSecurity).key == "s.typo"
    assert only_problem([["a", "1"], ["b", "x"]], list[Row]).key == "s[1][1]"


class Identified(LoomFrozenStruct):
    id: uuid.UUID
    parent: uuid.UUID | None


def test_a_text_of_the_wrong_form_is_said_to_be_so() -> None:
    bad, missing = problems_of({"id": "hunter2"}, Identified)
    assert bad.message == "invalid UUID; expected `UUID`"
    assert missing.message == "required key is missing; expected `UUID | null`"


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("low", Level, Level.LOW),
        ("7", UserId, 7),
        ("/tmp", Path | None, Path("/tmp")),
        ("/tmp", Path | str, "/tmp"),
        ("2020-01-02", datetime.date, datetime.date(2020, 1, 2)),
        (["1"], list[int] | int, [1]),
        ({"a": "1"}, dict[str, int] | None, {"a": 1}),
        (["a"], frozenset[str], frozenset({"a"})),
        (3, Any, 3),
        ({"a": ["/x", "/y"]}, dict[str, list[Path | str]], {"a": ["/x", "/y"]}),
        (["/x"], tuple[Path | int, ...], (Path("/x"),)),
    ],
)
def test_ordinary_annotations_are_converted(value: Any, kind: Any, expected: Any) -> None:
    assert convert_section(value, kind) == expected


class Range(LoomFrozenStruct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.low} exceeds {self.high}")


def test_a_structs_own_check_is_told_at_its_place_without_the_values() -> None:
    problem = only_problem({"x": {"low": "91", "high": 17}}, dict[str, Range])
    assert problem.key == "s.x"
    assert problem.message.startswith("ValueError raised at test_config_conversion.py:")
    assert problem.message.endswith("*** exceeds ***")


def test_whatever_a_structs_own_check_raises_is_told() -> None:
    class Broken(LoomFrozenStruct):
        x: str

        def __post_init__(self) -> None:
            raise LookupError(f"no {self.x}")

    problem = only_problem([{"x": "hunter2"}], list[Broken])
    assert problem.key == "s[0]"
    assert "LookupError" in problem.message
    assert "hunter2" not in problem.message


def test_a_structs_own_check_runs_once() -> None:
    runs = []

    class Counted(LoomFrozenStruct):
        x: int

        def __post_init__(self) -> None:
            runs.append(self.x)

    convert_section({"a": [{"x": 1}]}, dict[str, list[Counted]])
    assert runs == [1]


KNOWN = ("consumer", "consumers", "fallbacks", "pair", "by_name", "brokers", "group_id", "batch_size", "protocol")
TYPOS = st.text("abcdefghij_", min_size=1, max_size=12).filter(lambda name: name not in KNOWN)


@given(typos=st.lists(TYPOS, min_size=1, max_size=4, unique=True), depth=st.integers(0, 3))
def test_nested_unknown_keys_are_always_named(typos: list[str], depth: int) -> None:
    section: Any = {**GOOD, **dict.fromkeys(typos, 1)}
    prefix = "s"
    kind: Any = Consumer
    for level in range(depth):
        section, kind, prefix = (
            ({"k": section}, dict[str, kind], prefix) if level % 2 else ([section], list[kind], prefix)
        )
    found = [problem.key.rpartition(".")[2] for problem in problems_of(section, kind)]
    assert found == typos


SECRETS = st.text("qwxz0123456789", min_size=6, max_size=20).map(lambda text: f"s3cr3t{text}")
LEAVES = st.one_of(SECRETS, st.integers(10**9, 10**12), st.floats(1e9, 1e12), st.lists(SECRETS, max_size=2))
SHAPES = st.dictionaries(
    st.sampled_from([*KNOWN, "typo"]),
    st.one_of(LEAVES, st.dictionaries(st.sampled_from([*KNOWN, "typo"]), LEAVES, max_size=4)),
    min_size=1,
    max_size=5,
)


def scalars(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in scalars(item)]
    if isinstance(value, list):
        return [text for item in value for text in scalars(item)]
    return [str(value)]


@given(section=SHAPES, kind=st.sampled_from([Kafka, Consumer, Security, File, Range, Point, dict[str, Level]]))
def test_no_value_of_the_configuration_appears_in_an_error(section: dict[str, Any], kind: Any) -> None:
    said = ""
    try:
        convert_section(section, kind, key="s")
    except ConfigError as error:
        said = str(error)
    assert not [text for text in scalars(section) if text in said]
