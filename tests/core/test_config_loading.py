"""A configuration comes from a YAML file or a mapping, and a file that is none says where and why."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct


def write(folder: Path, text: str) -> Path:
    path = folder / "app.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        ConfigContext.from_yaml(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    assert str(path) in str(caught.value)
    return problem.message


def test_a_file_is_read_and_remembered(tmp_path: Path) -> None:
    path = write(tmp_path, "pricing:\n  currency: EUR\n")
    context = ConfigContext.from_yaml(str(path))
    assert context.raw("pricing") == {"currency": "EUR"}
    assert context.file == str(path)
    assert ConfigContext.from_dict({}).file is None


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "---\n"])
def test_an_empty_file_is_an_empty_configuration(tmp_path: Path, text: str) -> None:
    assert ConfigContext.from_yaml(write(tmp_path, text)).unread_sections() == ()


def test_an_absent_file_is_a_config_error(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "nowhere.yaml")


def test_a_folder_is_a_config_error(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


def test_a_file_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_bytes(b"a: \xff\n")
    assert "not UTF-8" in refusal(path)


def test_broken_yaml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    assert "line 3, column 2" in refusal(write(tmp_path, "a:\n  b: 1\n c: 2\n"))


def test_a_key_given_twice_is_refused_and_named(tmp_path: Path) -> None:
    assert "line 2, column 1: the key `kafka` appears twice" in refusal(write(tmp_path, "kafka: {}\nkafka: {}\n"))


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "a list"), ("hunter2\n", "a single value"), ("3\n", "a single value")]
)
def test_a_top_level_that_is_no_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    assert f"the top level is {kind}" in refusal(write(tmp_path, text))


@pytest.mark.parametrize(
    "value",
    [
        "*hunter2",
        "!hunter2 x",
        "!!int hunter2",
        "!!timestamp hunter2",
        "@hunter2",
        "'hunter2",
        "hunter2: x",
        "${hunter2",
    ],
)
def test_a_value_that_breaks_the_file_is_not_repeated(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, f"a:\n  password: {value}\n")
    with pytest.raises(ConfigError) as caught:
        ConfigContext.from_yaml(path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_broken_interpolation_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ConfigContext.from_yaml(write(tmp_path, "a:\n  b: 'pa${ss'\n"))
    (problem,) = caught.value.problems
    assert problem.key == "a.b"
    assert problem.remedy is not None
    assert r"\${" in problem.remedy


def test_any_mapping_is_taken_and_copied() -> None:
    inner = OrderedDict(b=[1, (2, 3)])
    context = ConfigContext.from_dict(MappingProxyType({"a": MappingProxyType(inner)}))
    inner["b"] = []
    assert context.raw("a") == {"b": [1, [2, 3]]}


def test_objects_in_a_mapping_are_kept() -> None:
    client = object()
    assert ConfigContext.from_dict({"a": {"client": client}}).raw("a.client") is client


def test_a_key_that_is_no_text_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a string"):
        ConfigContext.from_dict({"a": {None: 1}})


MISTAKES = {
    "s:\n\ta: 1\n": "line 2, column 1: the indentation contains a tab",
    "s:\n  a: [1, 2\nb: 3\n": "line 3, column 2: the list is not closed .*(it begins at line 2, column 6)",
    "s: {a: 1\nb: 2\n": "line 2, column 2: the mapping is not closed with `}`",
    "s: {a: ${oc.env:HOME}}\n": "line 1, column 9: .*put a value that holds `${…}` in quotes",
    "s:\n  a: b: c\n": "line 2, column 7: there is a colon too many",
    "s:\n  a: 1\n b: 2\n": "line 3, column 2: the line does not fit in with the indentation",
    "s:\n  a: 1\n  - b\n": "line 3, column 3: there is a list item where a `key: value` is expected",
    's:\n  x: "abc\nb: 2\n': "line 4, column 1: a quote is opened and never closed (it begins at line 2, column 6)",
    "s:\n  x: @foo\n": "line 2, column 6: a value cannot begin with this character",
    "s:\n  x: *foo\n": "line 2, column 6: an alias",
    's:\n  x: "\\d+"\n': "line 2, column 8: a backslash in double quotes",
    "s:\n  x: !foo bar\n": "line 2, column 6: the tag `!…` is unknown",
    "s: {a: 1}\n---\ns: {a: 2}\n": "line 2, column 1: a second document",
    "s: \x01\n": "line 1, column 4: the file contains a control character",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_yaml_is_told_in_words_with_line_and_column(tmp_path: Path, text: str) -> None:
    said = "not valid YAML at " + re.escape(MISTAKES[text]).replace(r"\.\*", ".*")
    assert re.search(said, refusal(write(tmp_path, text)))


@pytest.mark.parametrize("key", ["on", "off", "yes", "no", "true"])
def test_a_key_that_yaml_reads_as_a_truth_value_is_explained(tmp_path: Path, key: str) -> None:
    class Retry(LoomFrozenStruct):
        attempts: int = 3

    context = ConfigContext.from_yaml(write(tmp_path, f"retry:\n  {key}: 5\n"))
    with pytest.raises(ConfigError, match=r"YAML reads `on`, `off`, .* as truth values; write the key in quotes"):
        context.section("retry", Retry)


def test_a_colon_without_a_space_is_explained(tmp_path: Path) -> None:
    class Retry(LoomFrozenStruct):
        attempts: int = 3

    context = ConfigContext.from_yaml(write(tmp_path, "retry:\n  attempts:3\n"))
    with pytest.raises(ConfigError, match=r"retry: expected `object`, got `str` .*a colon needs a space after it"):
        context.section("retry", Retry)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("${GROUP}", "${oc.env:GROUP}"),
        ("${GROUP:readers}", "${oc.env:GROUP,default}"),
        ("${GROUP:-readers}", "${oc.env:GROUP,default}"),
        ("${env:GROUP}", "${oc.env:NAME}"),
        ("${GROUP", "${oc.env:NAME}"),
    ],
)
def test_a_variable_as_a_shell_writes_it_is_told_how_it_is_written_here(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ConfigContext.from_yaml(write(tmp_path, f"s: {{x: '{text}'}}\n")).raw("s")
    assert hint in str(refused.value)
