"""Keys of a configuration that the environment gives, by value or by the name of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loom.core.config import ConfigContext, ConfigError
from loom.core.model import LoomFrozenStruct


class Consumer(LoomFrozenStruct):
    group_id: str = "none"
    batch_size: int = 1
    commits: bool = True
    topics: tuple[str, ...] = ()


class Kafka(LoomFrozenStruct):
    consumer: Consumer = Consumer()
    password: str = ""


def loaded(mapping: dict[str, Any] | None = None) -> Kafka:
    return ConfigContext.from_dict(mapping or {}).section_or_default("kafka", Kafka, Kafka())


def test_a_variable_gives_a_key_of_any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__GROUP_ID", "orders")
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__BATCH_SIZE", "500")
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__COMMITS", "false")
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__TOPICS", "[a, b.c]")
    assert loaded() == Kafka(Consumer("orders", 500, False, ("a", "b.c")))


def test_it_wins_over_a_file_and_leaves_the_rest_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "loom.yaml"
    file.write_text("kafka: {consumer: {group_id: mine, batch_size: 7}, password: '${oc.env:NOT_THERE,x}'}")
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__GROUP_ID", "theirs")
    assert ConfigContext.from_yaml(file).section("kafka", Kafka) == Kafka(Consumer("theirs", 7), "x")


def test_a_file_gives_a_secret_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p$w{}${oc.env:HOME}\n")
    monkeypatch.setenv("LOOM__KAFKA__PASSWORD_FILE", str(tmp_path / "password"))
    assert loaded().password == "p$w{}${oc.env:HOME}"


def test_a_key_of_ones_own_is_found_whatever_its_case_and_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM__PRICING__BASE_CURRENCY", "USD")
    monkeypatch.setenv("LOOM__TOPICS__ORDERS_RAW__NAME", "v2")
    pricing = {"baseCurrency": "EUR", "Base-Currency": "EUR"}
    config = ConfigContext.from_dict({"pricing": pricing, "topics": {"orders.raw": {"name": "v1"}}})
    assert config.raw("pricing")["Base-Currency"] == "USD"
    assert config.raw("topics") == {"orders.raw": {"name": "v2"}}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LOOM__KAFKA": "x"}, ("LOOM__KAFKA", "names no key")),
        ({"LOOM__KAFKA____X": "x"}, ("LOOM__KAFKA____X", "names no key")),
        (
            {"LOOM__KAFKA__PASSWORD": "a", "LOOM__KAFKA__PASSWORD_FILE": "b"},
            ("LOOM__KAFKA__PASSWORD_FILE", "kafka.password", "LOOM__KAFKA__PASSWORD gives too"),
        ),
        ({"LOOM__KAFKA__PASSWORD_FILE": "/nowhere/at/all"}, ("LOOM__KAFKA__PASSWORD_FILE", "/nowhere/at/all")),
        ({"LOOM__KAFKA__CONSUMER__TOPICS": "[a"}, ("LOOM__KAFKA__CONSUMER__TOPICS", "not YAML")),
        (
            {"LOOM__KAFKA__CONSUMER__BATCH_SIZE": "many"},
            ("LOOM__KAFKA__CONSUMER__BATCH_SIZE", "kafka.consumer.batch_size"),
        ),
        (
            {"LOOM__KAFKA__CONSUMER__GROUP_IDD": "x"},
            ("LOOM__KAFKA__CONSUMER__GROUP_IDD", "kafka.consumer.group_idd", "group_id"),
        ),
    ],
)
def test_what_is_wrong_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: tuple[str, ...]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        loaded()
    for part in said:
        assert part in str(caught.value)


def test_a_key_that_is_laid_over_later_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOM__KAFKA__CONSUMER__GROUP_ID", "orders")
    config = ConfigContext.from_dict({}).overlaid({"kafka": {"consumer": {"group_id": "given"}}})
    assert config.section("kafka", Kafka).consumer.group_id == "given"
