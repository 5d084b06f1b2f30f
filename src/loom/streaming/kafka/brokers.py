"""The addresses of a cluster, in the forms in which a config may give them."""

from __future__ import annotations

from loom.core.config.field_error import FieldError, require_text

__all__ = ["broker_list", "check_addresses"]


def broker_list(brokers: tuple[str, ...] | str) -> tuple[str, ...]:
    """Each broker's `host:port`, whichever way they were written.

    >>> broker_list("a:9092, b:9092")
    ('a:9092', 'b:9092')
    """
    return tuple(part.strip() for part in brokers.split(",")) if isinstance(brokers, str) else brokers


def check_addresses(brokers: tuple[str, ...] | str) -> None:
    """Raise `FieldError` for an address that is empty."""
    for written in (brokers,) if isinstance(brokers, str) else brokers or ("",):
        require_text("brokers", written)
        if not all(address.strip() for address in written.split(",")):
            raise FieldError("brokers", "holds an empty address", "write host:port, with one comma between two of them")
