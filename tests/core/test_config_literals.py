"""A configuration that needs no resolving is read without OmegaConf, and says the same as with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loom.core.config import ConfigContext, ConfigError

KEYS = st.sampled_from(["a", "b", "a.b", "on", "1", "", "x-y", "~", "null", "ñ"])
TEXTS = st.one_of(
    st.text(max_size=4).filter(lambda text: "${" not in text),
    st.sampled_from(["???", "$", "{}", "yes", "1e3", "2024-01-01", "0x1", "1_000", "~", "<<"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
CONFIGS = st.dictionaries(KEYS, VALUES, max_size=4)
#: a section that has something to resolve, so that OmegaConf reads all of them
RESOLVED = {"resolved": "${oc.env:HOME,none}"}


def told(context: ConfigContext) -> Any:
    """All that a context says of its sections, but for the one that has something to resolve."""
    found: dict[str, Any] = {}
    for name in context.unread_sections():
        if name not in RESOLVED:
            try:
                found[name] = context.raw(name)
            except ConfigError as error:
                found[name] = [(problem.key, problem.message) for problem in error.problems]
    return found


@given(CONFIGS)
def test_a_mapping_says_the_same_in_both_ways(config: dict[str, Any]) -> None:
    assert told(ConfigContext.from_dict(config)) == told(ConfigContext.from_dict({**config, **RESOLVED}))


def over(context: ConfigContext, upper: dict[str, Any]) -> Any:
    """What a context says with a mapping laid over it; a list does not lie on a mapping, nor the other way round."""
    try:
        return told(context.overlaid(upper))
    except TypeError as refused:
        return str(refused)


@given(CONFIGS, CONFIGS)
def test_one_laid_over_another_says_the_same_in_both_ways(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    plain = ConfigContext.from_dict(lower)
    assert over(plain, upper) == over(ConfigContext.from_dict({**lower, **RESOLVED}), upper)
    assert over(plain, upper) == over(plain, {**upper, **RESOLVED})
    assert told(plain) == told(ConfigContext.from_dict(lower)), "the lower one is as it was"


def read(folder: Path, text: str) -> Any:
    file = folder / "app.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        return told(ConfigContext.from_yaml(file))
    except ConfigError as error:
        return [problem.message for problem in error.problems]


@given(CONFIGS, st.sampled_from([None, "'", '"']), st.booleans())
def test_a_file_says_the_same_in_both_ways(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], quoted: str | None, flow: bool
) -> None:
    folder = tmp_path_factory.mktemp("config")
    text = yaml.safe_dump({"last": 1, **config}, default_style=quoted, default_flow_style=flow, allow_unicode=True)
    both = yaml.safe_dump(
        {"last": 1, **config, **RESOLVED}, default_style=quoted, default_flow_style=flow, allow_unicode=True
    )
    assert read(folder, text) == read(folder, both)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1e3",
            "1.5",
            "-0.5",
            "1.",
            ".5",
            "+7",
            "007",
            "0o7",
            "0x1F",
            "1_000",
            "12:30:45",
            "2024-01-01",
            "2024-01-01 10:00:00",
        ),
        *(
            "yes",
            "No",
            "ON",
            "~",
            "null",
            "",
            "''",
            '"1"',
            "'007'",
            "!!str 5",
            '!!int "5"',
            "!!float 5",
            "!!binary aGk=",
        ),
        *(
            "[1, 2",
            "*no",
            "&a 1",
            "|\n    x\n    y",
            ">\n    x\n    y",
            "<<",
            "=",
            "???",
            "'???'",
            "!!set {a, b}",
            "{1: x}",
        ),
        *(
            "{a: 1, a: 2}",
            "{on: 1}",
            "{a: &b {c: 1}, d: *b}",
            "{a: &b {c: 1}, d: {<<: *b, e: 2}}",
            "1__0",
            "-",
            "- 1",
            "+",
            ".",
        ),
        *(".inf", ".nan", "1e", "0.1e5", "1e+3", "- a", "é", "a: b", "a#b", "a #b"),
    ],
)
def test_a_value_in_a_file_says_the_same_in_both_ways(tmp_path: Path, value: str) -> None:
    plain = read(tmp_path, f"resolved: nothing\ns:\n  x: {value}\n")
    assert repr(plain) == repr(read(tmp_path, f"resolved: ${{oc.env:HOME,none}}\ns:\n  x: {value}\n"))
