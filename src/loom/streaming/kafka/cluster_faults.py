"""The faults of one cluster, as its clients report them, in words a person can act on.

The calls of a client fail with "Broker transport failure", whatever is wrong; its error callback and its log know more.
There is one object per cluster and run, shared by all clients of that cluster.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from confluent_kafka import KafkaError

from loom.streaming.kafka.client_config import CLIENT_LOG, is_denied
from loom.streaming.kafka.client_statistics import ClientStatistics
from loom.streaming.kafka.errors import (
    AuthenticationFailedError,
    AuthorizationFailedError,
    BrokerUnavailableError,
    KafkaTransportError,
)

__all__ = ["ClusterFaults", "denied"]

#: seconds for which a fault explains failures; a client that keeps trying reports it again within 10
_FRESH = 30.0

#: `protocol://host:port/node: ` in front of what happened, where `bootstrap` is a node of the config's own
_AT = re.compile(r"^(?:\w+://)?(?:GroupCoordinator: |TxnCoordinator: )?(?P<address>[^\s/]+:\d+)(?:/(?P<node>\w+))?: ")
#: noise: how long the client was in which of its own states
_STATE = re.compile(r" \(after \d+ms in state .*\)$")
_HUNG_UP = re.compile(
    r"\]: (?:\w+://)?(?P<address>[^\s/]+:\d+)/\w+: Disconnected: .*\(after \d{1,3}ms in state (?:UP|APIVERSION_QUERY)"
)
#: whether a client sees this of a listener without TLS depends on which of the two is faster
_RESET = "connection reset by peer: "
_SASL_ERROR = "SASL authentication error: "


class _Kind(IntEnum):
    """Kinds of faults; the first explains the most."""

    AUTHENTICATION = 1
    TLS = 2
    ADVERTISED = 3
    RESOLVE = 4
    CONNECT = 5
    HUNG_UP = 6


class _Fault(NamedTuple):
    text: str
    at: float


class ClusterFaults:
    """What is known of the faults of one cluster. Its methods may be called from any thread.

    `config` holds the properties of a client; `all_down` is called when a client has lost its last broker.
    """

    def __init__(self, config: Mapping[str, Any], all_down: Callable[[], None] | None = None) -> None:
        self._user = config.get("sasl.username")
        self._mechanism = str(config.get("sasl.mechanism") or "")
        self._protocol = str(config.get("security.protocol") or "PLAINTEXT")
        self._has_token_source = any(key == "oauth_cb" or "oauthbearer" in key for key in config)
        self.brokers = str(config.get("bootstrap.servers", ""))
        self._known = frozenset(part.strip() for part in self.brokers.split(","))
        #: an error callback of the author's own
        self._theirs: Callable[[KafkaError], None] | None = config.get("error_cb")
        self._all_down = all_down
        #: what clients report of their traffic, where that is wanted
        self.statistics: ClientStatistics | None = None
        self._lock = threading.Lock()
        self._faults: dict[_Kind, _Fault] = {}

    def note(self, error: KafkaError) -> None:
        """The error callback of a client."""
        CLIENT_LOG.info("client: %s", error.str())
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self._all_down is not None:
                self._all_down()
        else:
            self._sort_in(error.code(), error.str())
        if self._theirs is not None:
            self._theirs(error)

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """The log of a client. Its lines are for `--debug`, except one that no callback reports."""
        CLIENT_LOG.log(level, message, *arguments)
        found = _HUNG_UP.search(message % arguments if arguments else message)
        if found is not None:
            self._add(_Kind.HUNG_UP, f"{found['address']} closes the connection at once{self._other_protocol()}")

    def no_token(self, why: str) -> None:
        """A callback for OAuth tokens has failed."""
        self._add(_Kind.AUTHENTICATION, f"no OAuth token: {why}")

    @property
    def refuses(self) -> bool:
        """Whether the cluster rejects us, which waiting does not change."""
        return self._fresh(_Kind.AUTHENTICATION) is not None

    def explain(self) -> str | None:
        """What is wrong, according to recent reports of the clients."""
        for kind in _Kind:
            text = self._fresh(kind)
            if text is not None:
                return text
        if self._mechanism == "OAUTHBEARER" and not self._has_token_source:
            return (
                "the mechanism OAUTHBEARER needs tokens: give security.sasl_oauth_callback, or a sasl.oauthbearer.* "
                "property in extra"
            )
        return None

    def failure(self, what: str, found: KafkaError | None = None, remedy: str | None = None) -> KafkaTransportError:
        """The error to raise if `what` failed; `found` is the error of the call, used if nothing better is known, and
        `remedy` what helps where no broker is there."""
        if found is not None and is_denied(found):
            return denied(found, what)
        explained = self.explain()
        if self._fresh(_Kind.AUTHENTICATION) is not None or self._fresh(_Kind.TLS) is not None:
            return AuthenticationFailedError(_sentences(explained, "Check kafka.*.security"))
        told = explained or (found.str() if found is not None else "no answer")
        return BrokerUnavailableError(_sentences(f"{what}: {told}", remedy))

    def _sort_in(self, code: int, text: str) -> None:
        found = _AT.match(text)
        address = found["address"] if found is not None else self.brokers
        reason = _STATE.sub("", text[found.end() :] if found is not None else text)
        if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._add(
                _Kind.AUTHENTICATION, f"authentication failed{self._as_whom()} at {address}: {self._sasl(reason)}"
            )
        elif code == KafkaError._SSL or "SSL" in reason:
            self._add(_Kind.TLS, f"the TLS handshake with {address} failed: {reason.replace(_RESET, '')}")
        elif code == KafkaError._RESOLVE:
            self._add(_Kind.RESOLVE, f"{address} cannot be resolved: {reason}")
        elif code == KafkaError._TRANSPORT and "Connect to" in reason:
            reason = reason.rpartition(" failed: ")[2]
            if address in self._known:
                self._add(_Kind.CONNECT, f"{address} cannot be reached: {reason}")
            else:
                self._add(
                    _Kind.ADVERTISED,
                    f"the brokers at {self.brokers} advertise {address} (advertised.listeners), which cannot be reached "
                    f"from here: {reason}",
                )

    def _as_whom(self) -> str:
        whom = f" for user {self._user!r}" if self._user else ""
        return f"{whom} ({self._mechanism})" if self._mechanism else whom

    def _sasl(self, reason: str) -> str:
        reason = reason.removeprefix(_SASL_ERROR).strip()
        if "Request not valid in current SASL state" in reason:
            return f"{reason.rstrip(': ')}. Perhaps this listener does not use SASL (security.protocol)"
        return reason

    def _other_protocol(self) -> str:
        return f"; perhaps it is a listener for another security.protocol than {self._protocol}"

    def _add(self, kind: _Kind, text: str) -> None:
        with self._lock:
            self._faults[kind] = _Fault(text, time.monotonic())

    def _fresh(self, kind: _Kind) -> str | None:
        with self._lock:
            fault = self._faults.get(kind)
        return fault.text if fault is not None and time.monotonic() - fault.at < _FRESH else None


def _sentences(said: str | None, remedy: str | None) -> str:
    said = said or ""
    return f"{said}{'' if said.endswith(('.', '?')) else '.'} {remedy}" if remedy else said


def denied(error: KafkaError, what: str) -> AuthorizationFailedError:
    """The error for what an ACL forbids."""
    return AuthorizationFailedError(
        f"{what}: {error.str().rstrip('.')}. The user of this client lacks a permission (ACL); docs/operations.md lists "
        "those that a flow needs"
    )
