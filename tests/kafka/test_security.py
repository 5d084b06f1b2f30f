"""A broker that asks who one is: what is said to those it does not let in, and OAuth tokens for every client."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from loom.cli.exit_codes import Exit, exit_for
from loom.streaming import StreamingRunner
from loom.streaming.kafka.errors import AuthenticationFailedError, AuthorizationFailedError, BrokerUnavailableError
from tests.cli.conftest import Loom
from tests.cli.mistakes import all_mistakes
from tests.support.apache_kafka import ApacheKafka, Behind, free_port, why_unavailable
from tests.support.broker import FreshTopics
from tests.support.fork_server import ForkServer
from tests.support.mistaken import Mistaken
from tests.support.one_way import OneWay
from tests.support.running import all_done, run_until
from tests.support.waiting import LONG_S

_JAAS = "org.apache.kafka.common.security"
PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
    "listener.name.proxied.plain.sasl.jaas.config": f'{_JAAS}.plain.PlainLoginModule required user_bob="bob-secret";',
    "listener.name.proxied.oauthbearer.sasl.jaas.config": (
        f'{_JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="carol";'
    ),
    "listener.name.proxied.oauthbearer.sasl.server.callback.handler.class": (
        f"{_JAAS}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}
BOB = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "bob", "sasl_password": "bob-secret"}


class Secured:
    """A broker with a plain listener, whose user may do anything, and one behind SASL and ACLs."""

    def __init__(self, broker: ApacheKafka, secured: str) -> None:
        self.broker = broker
        self.bootstrap = secured
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap})

    def one_way(self) -> OneWay:
        return OneWay(self.broker, FreshTopics(self.broker))

    def runner(self, one_way: OneWay, security: dict[str, Any]) -> StreamingRunner:
        config = one_way.config()
        for client in ("consumer", "producer"):
            config["kafka"][client] |= {"brokers": [self.bootstrap], "security": security}
        return StreamingRunner.from_dict(one_way.flow(), config)

    def allow(self, user: str, *rights: tuple[ResourceType, str, AclOperation]) -> None:
        """Grant rights, and wait until the broker acts on them."""
        made = self._admin.create_acls(
            [
                AclBinding(
                    kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
                )
                for kind, name, operation in rights
            ]
        )
        for future in made.values():
            future.result(LONG_S)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    port = free_port()
    with ApacheKafka(tmp_path_factory.mktemp("secured"), PROPERTIES, behind=Behind(port, port)) as broker:
        yield Secured(broker, f"127.0.0.1:{port}")


#: what the config says of the client, and what the error must tell
NOT_LET_IN = {
    "a wrong password": (BOB | {"sasl_password": "nobody-knows"}, "authentication failed for user 'bob' (PLAIN)"),
    "a mechanism that the broker has not": (BOB | {"sasl_mechanism": "SCRAM-SHA-256"}, "PLAIN,OAUTHBEARER"),
}


@pytest.mark.parametrize("case", NOT_LET_IN)
def test_who_is_not_let_in_is_told_why(secured: Secured, case: str) -> None:
    security, told = NOT_LET_IN[case]
    with pytest.raises(AuthenticationFailedError) as failure:
        secured.runner(secured.one_way(), security).run()
    assert told in str(failure.value)
    assert "nobody-knows" not in str(failure.value)
    assert exit_for(failure.value) is Exit.ENVIRONMENT
    # It spends restarts; brokers that cannot be reached do not.
    assert not isinstance(failure.value, BrokerUnavailableError)


def test_a_right_that_is_missing_is_told_as_one(secured: Secured) -> None:
    one_way = secured.one_way()
    secured.allow(
        "bob",
        (ResourceType.TOPIC, one_way.source, AclOperation.READ),
        (ResourceType.TOPIC, one_way.out, AclOperation.WRITE),
    )
    with pytest.raises(AuthorizationFailedError, match="Group authorization failed") as failure:
        secured.runner(one_way, BOB).run()
    assert exit_for(failure.value) is Exit.ENVIRONMENT


def token(_: str) -> tuple[str, float]:
    """A token without a signature, for `carol`."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": "carol", "iat": now, "exp": now + 3600})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return f"{'.'.join(encoded)}.", now + 3600.0


def test_tokens_of_a_function_that_the_config_names_reach_every_client(secured: Secured) -> None:
    one_way = secured.one_way()
    one_way.write(3)
    secured.allow(
        "carol",
        (ResourceType.TOPIC, one_way.source, AclOperation.READ),
        (ResourceType.TOPIC, one_way.out, AclOperation.WRITE),
        (ResourceType.GROUP, one_way.group, AclOperation.READ),
    )
    security = {
        "protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_callback": f"{__name__}:token",
    }
    run_until(secured.runner(one_way, security), all_done(3))
    assert sorted(one_way.written()) == [0, 1, 2]


#: the group of the page's flow is one, so these come one after another
MISTAKES = [title for title, mistake in all_mistakes().items() if mistake.beside == "kafka"]


@pytest.fixture(scope="module")
def shop(secured: Secured) -> Secured:
    """The broker with the topics of the page of mistakes, which bob may use, but not their group."""
    for topic in ("orders", "priced", "rejected"):
        secured.broker.create_topic(topic)
    writes = [(ResourceType.TOPIC, topic, AclOperation.WRITE) for topic in ("priced", "rejected")]
    secured.allow("bob", (ResourceType.TOPIC, "orders", AclOperation.READ), *writes)
    return secured


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_prints_what_the_page_says(
    title: str, shop: Secured, tmp_path: Path, fork_server: ForkServer
) -> None:
    mistake = all_mistakes()[title]
    bootstrap = shop.broker.bootstrap if title == "A group that is in use" else shop.bootstrap
    member = _member(shop.broker.bootstrap) if title == "A group that is in use" else None
    try:
        Mistaken(mistake, tmp_path, fork_server, dict(Loom.environment()), bootstrap).check()
    finally:
        if member is not None:
            member.close()


def _member(bootstrap: str) -> Consumer:
    """Another consumer of the group of the page, which has its partitions."""
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": "shop", "log_level": 0})
    member.subscribe(["orders"])
    deadline = time.monotonic() + LONG_S
    while not member.assignment():
        assert time.monotonic() < deadline
        member.poll(0.1)
    return member
