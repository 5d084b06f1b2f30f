"""Which hosts are this machine alone."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["is_address", "is_loopback"]


def is_address(host: str) -> bool:
    """Whether a host is an IP address and not a name.

    >>> is_address("127.0.0.1"), is_address("localhost")
    (True, False)
    """
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host, as an address or by its name, can be reached from this machine only.

    >>> is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)
