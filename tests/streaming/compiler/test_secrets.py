"""Whatever a config holds, secrets are in no plan, no picture of it and no error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from loom.streaming import IntoTopic, Message, RecordStep, compile_flow
from loom.streaming.compiler import CompilationError
from loom.streaming.compiler.explain.formats import FORMATS
from loom.streaming.kafka import ConsumerSettings, KafkaSecuritySettings, KafkaSettings, ProducerSettings
from tests.streaming.orders import Order, config, flow, price

#: with quotes, line ends and letters of any kind, and nothing else in these tests looks like them
SECRETS = st.text(st.sampled_from("abcXYZ019-_'\"\n\t /ñ漢"), min_size=4, max_size=30).map(
    lambda text: f"s3cr3t{text}q"
)


class Vault(RecordStep[Order, Order]):
    def __init__(self, password: str, token: str = "", hint: str = "") -> None:
        if "bad" in password:
            raise ValueError(f"{password} does not open the vault")
        self.password = password

    def execute(self, message: Message[Order]) -> Order:
        return message.payload


def assert_hidden(secret: str, *texts: str) -> None:
    for text in texts:
        assert secret not in text
        assert repr(secret)[1:-1] not in text
        assert "s3cr3t" not in text


def with_secret(secret: str) -> dict[str, Any]:
    security = {"protocol": "SASL_SSL", "sasl_username": "ann", "sasl_password": secret, "ssl_key_password": secret}
    extra = {"sasl.oauthbearer.client.secret": secret, "ssl.key.pem": secret, "plugin.note": secret}
    entry = {"security": security, "extra": extra}
    made = config(consumer=entry, producer=entry, producers={"orders.priced": entry}, consumers={"orders.raw": entry})
    return {**made, "vault": {"password": secret, "hint": secret}}


@given(secret=SECRETS)
def test_a_plan_shows_no_secret(secret: str) -> None:
    declared = flow(Vault.from_config("vault", token=secret), output=IntoTopic("orders.priced", dlq="dead"))
    plan = compile_flow(declared, config=with_secret(secret))
    assert plan.source.settings.security is not None
    assert plan.source.settings.security.sasl_password == secret
    assert_hidden(secret, *(plan.explain(format) for format in FORMATS))
    assert_hidden(secret, repr(plan), str(plan), pretty_repr(plan), *map(str, plan.warnings))


@given(secret=SECRETS)
def test_a_sink_of_ones_own_shows_nothing_of_itself(secret: str) -> None:
    class Warehouse:
        def __init__(self, password: str) -> None:
            self.password = password

        def __repr__(self) -> str:
            return f"Warehouse({self.password!r})"

        def build_partition(self, config: Any, worker_index: int, worker_count: int, **more: Any) -> Any: ...

    plan = compile_flow(flow(price, Warehouse(secret), output=None), config=config())
    assert_hidden(secret, *(plan.explain(format) for format in FORMATS))
    assert_hidden(secret, repr(plan), str(plan), pretty_repr(plan))


@given(secret=SECRETS)
def test_settings_show_no_secret(secret: str) -> None:
    kafka = KafkaSettings(**with_secret(secret)["kafka"])
    for settings in (kafka, kafka.consumer_for("orders.raw"), kafka.producer_for("orders.priced")):
        assert_hidden(secret, repr(settings), str(settings), pretty_repr(settings))


def test_settings_show_what_is_no_secret() -> None:
    security = KafkaSecuritySettings("SASL_SSL", "PLAIN", "ann", "hunter2", ssl_key_password="hunter2")
    consumer = ConsumerSettings(("a:1",), "g", security=security, extra={"fetch.min.bytes": 1})
    shown = repr(consumer)
    assert "brokers=('a:1',), group_id='g'" in shown
    assert "sasl_username='ann', sasl_password='***'" in shown
    assert "extra=['fetch.min.bytes']" in shown
    assert repr(ProducerSettings("a:1")).startswith("ProducerSettings(brokers='a:1', client_id=None")


KEYS = ("sasl_password", "sasl_pasword", "protocol", "sasl_mechanism", "ssl_key_password")
ENTRY_KEYS = (
    "brokers",
    "group_id",
    "batch_size",
    "delivery",
    "format",
    "security",
    "extra",
    "typo",
    "enable_auto_commit",
)
BROKEN = st.dictionaries(
    st.sampled_from(ENTRY_KEYS),
    st.one_of(
        SECRETS,
        st.lists(SECRETS, max_size=2),
        st.dictionaries(st.sampled_from(KEYS), SECRETS, max_size=3),
        st.dictionaries(st.sampled_from(["acks", "group.id", "client.id"]), SECRETS, min_size=1),
    ),
    min_size=1,
)


@given(consumer=BROKEN, producer=BROKEN, named=BROKEN)
def test_an_invalid_config_is_told_without_its_values(consumer: Any, producer: Any, named: Any) -> None:
    settings = config(consumer=consumer, producer=producer, producers={"orders.priced": named})
    said = ""
    try:
        compile_flow(flow(price), config=settings)
    except CompilationError as error:
        said = str(error) + repr(error.errors) + pretty_repr(error.errors)
    assert "s3cr3t" not in said


@pytest.mark.parametrize("section", [{"password": 7}, {"pasword": "s3cr3t"}, {"password": "s3cr3t", "hinnt": "s3cr3t"}])
def test_arguments_that_do_not_fit_are_told_without_their_values(section: Any) -> None:
    with pytest.raises(CompilationError) as caught:
        compile_flow(flow(Vault.from_config("vault", token="s3cr3t")), config={**config(), "vault": section})
    assert "s3cr3t" not in str(caught.value)


@given(secret=SECRETS)
def test_a_constructor_that_quotes_a_secret_is_not_quoted(secret: str) -> None:
    with pytest.raises(CompilationError) as caught:
        compile_flow(flow(Vault.configure(password=f"bad {secret}")), config=config())
    assert "Vault() failed: ValueError" in str(caught.value)
    assert_hidden(secret, str(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_step_shows_what_it_was_made_of_by_name_alone() -> None:
    plan = compile_flow(flow(Vault.configure(password="hunter2")), config=config())
    assert repr(plan.nodes[0].bound) == "BoundStep(target='Vault', arguments=['password'])"  # type: ignore[union-attr]
