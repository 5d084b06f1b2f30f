"""How a Kafka client identifies itself: the `security` section, and the base of settings that mask their secrets.

Part of the `kafka` section, which `settings` reads. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from loom.core.choices import Declaration
from loom.core.redaction import MASK, is_secret_key
from loom.streaming.kafka.callback import load_callback

__all__ = ["ClientConfig", "KafkaSecuritySettings", "MaskedSettings"]

ClientConfig: TypeAlias = dict[str, Any]


class MaskedSettings(Declaration):
    """A struct that can be printed: secrets are masked, and of a mapping only the keys are shown."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, _shown(name, getattr(self, name))) for name in self.__struct_fields__]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class KafkaSecuritySettings(MaskedSettings):
    """How a client identifies itself. Secrets never appear in `repr`.

    >>> KafkaSecuritySettings("SASL_SSL", "PLAIN", "app", sasl_password="secret").to_confluent_config()["sasl.username"]
    'app'

    Args:
        protocol: how the client connects.
        sasl_mechanism: how it proves who it is.
        sasl_username: for `PLAIN` and `SCRAM`.
        sasl_password: as `sasl_username`.
        ssl_ca_location: a PEM file with the CA of the brokers; by default that of the system.
        ssl_certificate_location: a PEM file with the client's certificate.
        ssl_key_location: a PEM file with the client's key.
        ssl_key_password: the password of that key.
        sasl_oauth_callback: `module:function`; called with the text of `sasl.oauthbearer.config`, it returns a token and its
            expiry in seconds since 1970.

    Raises:
        ValueError: for a value that is not allowed, or a callback that cannot be loaded.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_ca_location: str | None = None
    ssl_certificate_location: str | None = None
    ssl_key_location: str | None = None
    ssl_key_password: str | None = None
    sasl_oauth_callback: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sasl_oauth_callback is not None:
            if self.sasl_mechanism != "OAUTHBEARER":
                raise ValueError("sasl_oauth_callback needs sasl_mechanism: OAUTHBEARER")
            try:
                load_callback(self.sasl_oauth_callback)
            except ValueError as error:
                raise ValueError(f"sasl_oauth_callback: {error}") from error

    def to_confluent_config(self) -> ClientConfig:
        """The properties of the client; anything that is not set is left to the client."""
        properties = {
            "security.protocol": self.protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": self.ssl_key_password,
            "oauth_cb": load_callback(self.sasl_oauth_callback) if self.sasl_oauth_callback is not None else None,
        }
        return {name: value for name, value in properties.items() if value is not None}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return list(value)
    return MASK if value is not None and is_secret_key(name) else value
