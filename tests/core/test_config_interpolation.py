"""Interpolations are resolved where they are read; one that fails is named by its key, never by a value."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from loom.core.config import ConfigContext, ConfigError, ConfigProblem, ConfigResolver
from tests.support.waiting import LONG_S


def problems_of(mapping: dict[str, Any], key: str, *resolvers: ConfigResolver) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        ConfigContext.from_dict(mapping, resolvers=resolvers).raw(key)
    assert caught.value.__cause__ is None
    return caught.value.problems


def test_a_variable_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_TEST_GROUP", "orders")
    context = ConfigContext.from_dict({"kafka": {"group": "${oc.env:LOOM_TEST_GROUP}-${oc.env:LOOM_TEST_UNSET,v1}"}})
    assert context.raw("kafka") == {"group": "orders-v1"}


def test_a_variable_is_looked_up_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ConfigContext.from_dict({"a": "${oc.env:LOOM_TEST_LATE}"})
    monkeypatch.setenv("LOOM_TEST_LATE", "here")
    assert context.raw("a") == "here"


def test_an_unset_variable_in_a_section_nobody_reads_does_no_harm() -> None:
    context = ConfigContext.from_dict({"db": {"password": "${oc.env:LOOM_TEST_UNSET}"}, "pricing": {"rate": 1}})
    assert context.raw("pricing") == {"rate": 1}
    assert context.has("db.password")


def test_an_unset_variable_is_named_with_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("db:\n  hosts:\n    - ${oc.env:LOOM_TEST_UNSET}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        ConfigContext.from_yaml(path).raw("db")
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (str(path), "db.hosts[0]")
    assert "`LOOM_TEST_UNSET` is not set" in problem.message


def test_every_failing_interpolation_of_a_section_is_reported() -> None:
    section = {"a": "${oc.env:LOOM_TEST_A}", "b.c": {"d": "${oc.env:LOOM_TEST_B}"}, "e": "${nowhere}"}
    assert [problem.key for problem in problems_of({"s": section}, "s")] == ["s.a", 's["b.c"].d', "s.e"]


def test_of_several_variables_the_unset_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM_TEST_HOST", "db.internal")
    (problem,) = problems_of({"url": "${oc.env:LOOM_TEST_HOST}:${oc.env:LOOM_TEST_PORT}"}, "url")
    assert "LOOM_TEST_PORT" in problem.message
    assert "LOOM_TEST_HOST" not in problem.describe()
    assert "db.internal" not in problem.describe()


def test_a_default_beside_a_failing_variable_is_not_repeated() -> None:
    (problem,) = problems_of({"url": "${oc.env:LOOM_TEST_PW,hunter2}@${oc.env:LOOM_TEST_HOST}"}, "url")
    assert "hunter2" not in problem.describe()


def test_a_reference_to_a_failing_place_names_both() -> None:
    (problem,) = problems_of({"a": "${b.c}", "b": {"c": "${oc.env:LOOM_TEST_UNSET}"}}, "a")
    assert problem.key == "a"
    assert "LOOM_TEST_UNSET" in problem.message


def test_a_reference_to_nothing_names_what_it_may_have_meant() -> None:
    (problem,) = problems_of({"a": "${defalts.rate}", "defaults": {"rate": 1}}, "a")
    assert "`defalts.rate`, which does not exist" in problem.message
    assert problem.nearest == "defaults"


@pytest.mark.parametrize("circle", [{"a": "${b}", "b": "${a}"}, {"a": {"b": "${a}"}}, {"a": {"b": "${a.b}"}}])
def test_a_circle_is_refused(circle: dict[str, Any]) -> None:
    assert problems_of(circle, "a")[0].message == "refers to itself"


def test_a_mandatory_value_that_is_not_given_is_named() -> None:
    (problem,) = problems_of({"a": {"b": "???"}}, "a")
    assert problem.key == "a.b"
    assert "mandatory" in problem.message
    (problem,) = problems_of({"a": "${b.c}", "b": {"c": "???"}}, "a")
    assert problem.key == "a"
    assert "mandatory" in problem.message


def test_a_section_may_be_a_reference() -> None:
    context = ConfigContext.from_dict(
        {"kafka": "${shared.kafka}", "shared": {"kafka": {"brokers": ["a", "${shared.b}"], "x": 1}, "b": "c"}}
    )
    assert context.raw("kafka") == {"brokers": ["a", "c"], "x": 1}
    assert context.raw("kafka.brokers") == ["a", "c"]
    assert context.has("kafka.x")


def test_a_reference_on_the_way_to_a_key_that_fails_is_reported() -> None:
    with pytest.raises(ConfigError, match="LOOM_TEST_UNSET"):
        ConfigContext.from_dict({"kafka": "${oc.env:LOOM_TEST_UNSET}"}).has("kafka.consumer")


def test_an_escaped_interpolation_is_plain_text() -> None:
    assert ConfigContext.from_dict({"a": r"\${b}", "c": "pa$$word"}).raw("a") == "${b}"


def test_a_resolver_of_ones_own_is_called_with_its_arguments() -> None:
    joined = ConfigResolver("join", lambda *parts: "-".join(parts))
    context = ConfigContext.from_dict({"a": "${join:x,y}", "b": ["${join:z}"]}, resolvers=[joined])
    assert context.raw("a") == "x-y"
    assert context.raw("b") == ["z"]


def test_two_contexts_may_give_one_name_to_two_resolvers() -> None:
    first = ConfigContext.from_dict({"a": "${tenant:}"}, resolvers=[ConfigResolver("tenant", lambda *_: "first")])
    second = ConfigContext.from_dict({"a": "${tenant:}"}, resolvers=[ConfigResolver("tenant", lambda *_: "second")])
    assert [first.raw("a"), second.raw("a"), first.raw("a")] == ["first", "second", "first"]


def test_two_contexts_may_resolve_at_the_same_time() -> None:
    both_inside = threading.Barrier(2, timeout=LONG_S)

    def context(name: str) -> ConfigContext:
        def resolve() -> str:
            both_inside.wait()
            return name

        return ConfigContext.from_dict({"a": ["${who:}", "${who:}"]}, resolvers=[ConfigResolver("who", resolve)])

    contexts = {"one": context("one"), "two": context("two")}
    seen: dict[str, list[str]] = {}
    threads = [threading.Thread(target=lambda n=n: seen.update({n: contexts[n].raw("a")})) for n in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"one": ["one", "one"], "two": ["two", "two"]}


def test_a_resolver_may_read_another_context() -> None:
    inner = ConfigContext.from_dict({"x": "${depth:}"}, resolvers=[ConfigResolver("depth", lambda: "inner")])
    depths = iter([lambda: inner.raw("x"), lambda: "outer"])
    resolver = ConfigResolver("depth", lambda: next(depths)())
    assert ConfigContext.from_dict({"a": ["${depth:}", "${depth:}"]}, resolvers=[resolver]).raw("a") == [
        "inner",
        "outer",
    ]


def test_a_resolver_of_another_context_is_unknown() -> None:
    ConfigContext.from_dict({}, resolvers=[ConfigResolver("elsewhere", lambda: "x")])
    for name in ("elsewhere", "nowhere"):
        (problem,) = problems_of({"a": f"${{{name}:}}"}, "a")
        assert problem.message == f"no resolver is called `{name}`"


def test_a_failing_resolver_is_named_without_what_it_says() -> None:
    def fetch(path: str) -> str:
        raise PermissionError(f"token hunter2 may not read {path}")

    (problem,) = problems_of({"a": "${vault:kv/hunter3}"}, "a", ConfigResolver("vault", fetch))
    assert problem.message == "the resolver `vault` failed with PermissionError"


def test_resolver_names_that_cannot_work_are_refused() -> None:
    for names in (["oc.env"], [""], ["twice", "twice"]):
        with pytest.raises(ValueError):
            ConfigContext.from_dict({}, resolvers=[ConfigResolver(name, str) for name in names])
