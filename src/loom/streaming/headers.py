"""Record headers: a mapping for readers, with every pair kept in order for writers.

Kafka lets a header name repeat and a value be null. Steps mostly want `headers["x"]`; what is
written back must be exactly what was read. This file serves both; it imports no client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, overload

__all__ = ["NO_HEADERS", "HeaderPairs", "Headers"]

T = TypeVar("T")

HeaderPairs: TypeAlias = tuple[tuple[str, bytes | None], ...]


class Headers(Mapping[str, bytes]):
    """An immutable mapping of header names to values in which the last pair of a name wins.

    A null value reads as `b""` through the mapping and stays null in `.pairs`.

    >>> headers = Headers([("a", b"1"), ("b", None), ("a", b"2")])
    >>> headers["a"], headers["b"], headers.pairs
    (b'2', b'', (('a', b'1'), ('b', None), ('a', b'2')))

    Args:
        pairs: names and values, in the order of the record.
    """

    __slots__ = ("_by_name", "pairs")

    #: every pair, in the order of the record
    pairs: HeaderPairs
    _by_name: dict[str, bytes]

    def __init__(self, pairs: Iterable[tuple[str, bytes | None]] = ()) -> None:
        self.pairs = tuple((name, value) for name, value in pairs)
        self._by_name = {name: value if value is not None else b"" for name, value in self.pairs}

    @classmethod
    def of(
        cls, headers: Mapping[str, bytes | None] | Mapping[str, bytes] | Iterable[tuple[str, bytes | None]]
    ) -> Headers:
        """Make `Headers` of headers in any form: `Headers`, a mapping or pairs.

        Args:
            headers: the headers.
        """
        if isinstance(headers, Headers):
            return headers
        return cls(headers.items() if isinstance(headers, Mapping) else headers)

    def replaced(self, names: Iterable[str], pairs: Iterable[tuple[str, bytes | None]]) -> Headers:
        """The same headers without any pair of `names`, followed by `pairs`.

        Args:
            names: which names are removed.
            pairs: what is added at the end.
        """
        gone = frozenset(names)
        return Headers([*(pair for pair in self.pairs if pair[0] not in gone), *pairs])

    def __getitem__(self, name: str) -> bytes:
        return self._by_name[name]

    # The mapping's own would raise and catch a KeyError for each absent name, and most of ours are absent.
    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @overload
    def get(self, name: str, default: None = None, /) -> bytes | None: ...
    @overload
    def get(self, name: str, default: bytes | T, /) -> bytes | T: ...
    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of a header.

        Args:
            name: its name.
            default: what to return if there is none.
        """
        return self._by_name.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self.pairs == other.pairs
        return self._by_name == other if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"


NO_HEADERS = Headers()
