"""Names that speak of secrets are known, and values under them are never shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.redaction import MASK, is_secret_key, mask_values, redact_mapping, redact_text


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "sasl_password",
        "SASL-PASSWORD",
        "ssl.key.password",
        "clientSecret",
        "access_token",
        "apiKey",
        "api_key",
        "aws.secret.access.key",
        "private-key",
        "Authorization",
        "db_credentials",
        "dsn",
    ],
)
def test_a_name_that_speaks_of_a_secret_is_one(name: str) -> None:
    assert is_secret_key(name)


@pytest.mark.parametrize(
    "name", ["key", "partition_key", "keys", "brokers", "tokenizer", "max_tokens", "key_api", "passenger", "topic", ""]
)
def test_an_ordinary_name_is_none(name: str) -> None:
    assert not is_secret_key(name)


def test_secrets_are_masked_at_any_depth() -> None:
    shown = redact_mapping({"a": [{"token": "x", "n": 1}], "credentials": {"user": "ann"}, "secret": None})
    assert shown == {"a": [{"token": MASK, "n": 1}], "credentials": MASK, "secret": None}


def test_a_password_in_a_url_is_masked() -> None:
    assert redact_mapping({"url": "amqp://ann:p@ss@host/x"}) == {"url": "amqp://ann:***@host/x"}


def test_the_original_is_left_alone() -> None:
    original: dict[str, Any] = {"a": {"token": "x"}}
    redact_mapping(original)
    assert original == {"a": {"token": "x"}}


def test_texts_lose_the_values_they_repeat() -> None:
    said = mask_values("bad port 70000.0 for db.internal (db.inter...)", {"port": "70000"}, ["db.internal"])
    assert said == "bad port *** for *** (db.***...)"


def test_texts_without_values_stay_as_they_are() -> None:
    assert mask_values("the rate must be positive", {"rate": -1, "on": True, "x": None}) == "the rate must be positive"


@given(value=st.text(min_size=4).filter(lambda text: text.strip("* ")), before=st.text(), after=st.text())
def test_a_value_of_some_length_never_survives(value: str, before: str, after: str) -> None:
    assert value not in mask_values(f"{before}'{value}'{after}", {"x": value}).replace(MASK, "\0")


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "password" * 100_000, 'a="' * 300_000, "' : " * 200_000, "://" * 300_000]
)
def test_a_text_of_any_length_is_read_once(text: str) -> None:
    # A pattern that tries the same part again and again would take hours.
    assert redact_text(text) == text


def test_an_assignment_is_masked_wherever_it_is_and_only_by_the_name_of_a_secret() -> None:
    said = "x" * 100_000 + " password=hidden, tokenizer=words {'client_secret': 'hidden', 'sku': 'A-1'}"
    shown = redact_text(said)
    assert "hidden" not in shown
    assert "tokenizer=words" in shown
    assert "'sku': 'A-1'" in shown
