"""The properties of one client as a plan holds them: never changed, compared by content, printed without a value.

No client is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loom.streaming.kafka.reserved_properties import shared_properties

__all__ = ["ClientProperties"]

_BROKERS, _PROTOCOL = "bootstrap.servers", "security.protocol"
#: what decides, beside the brokers, which cluster a client talks to, and as whom
_CONNECTION = ("security.", "sasl.", "ssl.", "enable.sasl.", "oauth_cb")


class ClientProperties(Mapping[str, Any]):
    """What a client is made with. Values may be secrets, so only names are printed.

    >>> properties = ClientProperties({"bootstrap.servers": "b:1,a:1", "sasl.password": "secret", "linger.ms": 1})
    >>> properties
    ClientProperties(['bootstrap.servers', 'sasl.password', 'linger.ms'])
    >>> properties.brokers
    ('b:1', 'a:1')
    """

    __slots__ = ("_properties",)

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = dict(properties)

    @property
    def brokers(self) -> tuple[str, ...]:
        """The `host:port` of each broker that the client begins with."""
        return tuple(self._properties[_BROKERS].split(","))

    def shared(self) -> ClientProperties:
        """Those that any client of the same cluster needs."""
        return ClientProperties(shared_properties(self._properties))

    def reaches_same_cluster(self, other: ClientProperties) -> bool:
        """Whether both clients talk to the same brokers as the same user.

        >>> properties = ClientProperties({"bootstrap.servers": "b:1,a:1", "linger.ms": 1})
        >>> properties.reaches_same_cluster(ClientProperties({"bootstrap.servers": "a:1,b:1", "security.protocol": "PLAINTEXT"}))
        True
        """
        return self._connection() == other._connection()

    def _connection(self) -> dict[str, Any]:
        found = {name: value for name, value in self._properties.items() if name.startswith(_CONNECTION)}
        return {_PROTOCOL: "PLAINTEXT", **found, _BROKERS: frozenset(self.brokers)}

    def __getitem__(self, name: str) -> Any:
        return self._properties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)

    def __rich_repr__(self) -> Iterator[list[str]]:
        yield list(self._properties)

    def __repr__(self) -> str:
        return f"ClientProperties({list(self._properties)})"
