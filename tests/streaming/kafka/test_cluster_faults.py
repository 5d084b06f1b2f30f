"""What a client is told of its brokers, in words: who was not let in, where, and what cannot be reached."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from loom.streaming.kafka.cluster_faults import ClusterFaults
from loom.streaming.kafka.errors import (
    AuthenticationFailedError,
    AuthorizationFailedError,
    BrokerUnavailableError,
    KafkaTransportError,
)

SASL = {
    "bootstrap.servers": "kafka.test:9092",
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "alice",
    "sasl.password": "hush-hush",
}
SAYS_NOTHING = KafkaError(KafkaError._TRANSPORT, "Failed to get metadata: Local: Broker transport failure")

#: what the client says, to whom it says it, the error that it becomes, and what that tells
CASES = {
    "wrong password": (
        KafkaError._AUTHENTICATION,
        (
            "sasl_plaintext://kafka.test:9092/bootstrap: SASL authentication error: invalid credentials (after 7ms in state "
            "AUTH_REQ)"
        ),
        AuthenticationFailedError,
        (
            "authentication failed for user 'alice' (SCRAM-SHA-512) at kafka.test:9092: invalid credentials. "
            "Check kafka.*.security"
        ),
    ),
    "wrong mechanism": (
        KafkaError._AUTHENTICATION,
        (
            "sasl_plaintext://kafka.test:9092/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL "
            "mechanism: broker's supported mechanisms: PLAIN (after 0ms in state AUTH_HANDSHAKE)"
        ),
        AuthenticationFailedError,
        "broker's supported mechanisms: PLAIN",
    ),
    "SASL to a listener without": (
        KafkaError._AUTHENTICATION,
        (
            "sasl_plaintext://kafka.test:9092/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not "
            "valid in current SASL state: broker's supported mechanisms:  (after 0ms in state AUTH_HANDSHAKE)"
        ),
        AuthenticationFailedError,
        "Perhaps this listener does not use SASL (security.protocol)",
    ),
    "TLS to a plaintext listener": (
        KafkaError._TRANSPORT,
        (
            "ssl://kafka.test:9092/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener? "
            "(after 5ms in state SSL_HANDSHAKE)"
        ),
        AuthenticationFailedError,
        (
            "the TLS handshake with kafka.test:9092 failed: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker "
            "listener?"
        ),
    ),
    "an advertised address": (
        KafkaError._TRANSPORT,
        "sasl_plaintext://10.0.0.7:9093/1: Connect to ipv4#10.0.0.7:9093 failed: Connection refused (after 0ms in state CONNECT)",
        BrokerUnavailableError,
        (
            "the brokers at kafka.test:9092 advertise 10.0.0.7:9093 (advertised.listeners), which cannot be reached from here: "
            "Connection refused"
        ),
    ),
    "an advertised coordinator": (
        KafkaError._TRANSPORT,
        "GroupCoordinator: 10.0.0.7:9093: Connect to ipv4#10.0.0.7:9093 failed: Connection refused (after 0ms in state CONNECT)",
        BrokerUnavailableError,
        "advertise 10.0.0.7:9093",
    ),
    "an unknown host": (
        KafkaError._RESOLVE,
        "kafka.test:9092/bootstrap: Failed to resolve 'kafka.test:9092': Name or service not known (after 0ms in state CONNECT)",
        BrokerUnavailableError,
        "kafka.test:9092 cannot be resolved: Failed to resolve 'kafka.test:9092': Name or service not known",
    ),
    "nobody listens": (
        KafkaError._TRANSPORT,
        "kafka.test:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
        BrokerUnavailableError,
        "kafka.test:9092 cannot be reached: Connection refused",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_client_was_told_is_said_in_the_place_of_a_transport_failure(case: str) -> None:
    code, text, error, told = CASES[case]
    faults = ClusterFaults(SASL)
    faults.note(KafkaError(code, text))
    faults.note(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    failure = faults.failure("no Kafka broker answers", SAYS_NOTHING)
    assert type(failure) is error
    assert told in str(failure)
    assert "hush-hush" not in str(failure)


def test_a_listener_that_hangs_up_at_once_speaks_another_protocol() -> None:
    faults = ClusterFaults({"bootstrap.servers": "kafka.test:9092"})
    where = "FAIL [rdkafka#producer-1] [thrd:kafka.test:9092/bootstrap]: kafka.test:9092/bootstrap"
    line = where + ": Disconnected: {} (after {}ms in state UP)"
    faults.log(30, "%s", line.format("connection closed by peer", 600_000))
    assert faults.explain() is None
    faults.log(30, "%s", line.format("connection closed by peer", 2))
    assert "another security.protocol than PLAINTEXT" in str(faults.failure("no Kafka broker answers", SAYS_NOTHING))


def test_who_is_not_let_in_need_not_wait() -> None:
    faults = ClusterFaults(SASL)
    faults.note(KafkaError(*CASES["nobody listens"][:2]))
    assert not faults.refuses
    faults.note(KafkaError(*CASES["wrong password"][:2]))
    assert faults.refuses


def test_a_missing_right_is_told_as_one() -> None:
    forbidden = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    failure: KafkaTransportError = ClusterFaults(SASL).failure("offsets could not be committed", forbidden)
    assert isinstance(failure, AuthorizationFailedError)
    assert "offsets could not be committed" in str(failure)


def test_tokens_without_a_source_are_missed() -> None:
    config = {**SASL, "sasl.mechanism": "OAUTHBEARER"}
    assert "sasl_oauth_callback" in str(ClusterFaults(config).failure("no Kafka broker answers", SAYS_NOTHING))
    assert ClusterFaults({**config, "oauth_cb": print}).explain() is None


def test_an_error_callback_of_the_authors_is_called_too() -> None:
    heard: list[int] = []
    ClusterFaults({**SASL, "error_cb": lambda error: heard.append(error.code())}).note(SAYS_NOTHING)
    assert heard == [KafkaError._TRANSPORT]
