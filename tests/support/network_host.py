"""Hosts of their own on one machine: network namespaces that reach a broker here, until their cable is cut.

    with Network(2) as network:
        ...  # a broker listens on network.address
        subprocess.run([*network.hosts[0].command, "python", "client.py"])
        network.hosts[0].lose_answers()

Needs root and the program `ip`; nothing else is changed on the machine, and all of it is gone afterwards.
"""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.apache_kafka import ApacheKafka, Behind, free_port

__all__ = ["HostedKafka", "Network", "NetworkHost"]

#: an address of a device that does not exist: what is sent there arrives nowhere
_NOBODY = "02:00:00:00:00:99"
#: of the addresses 10.x.y.z, x and y are chosen at random between these
_LEAST, _MOST = 64, 250


class NetworkHost:
    """One host: `command` before another one runs that there."""

    def __init__(self, name: str, here: str, there: str) -> None:
        self._name = name
        self._here, self._there = here, there
        self.command = ("ip", "netns", "exec", name)

    def connect(self, network: str) -> None:
        """Create the namespace and its cable. Raises `PermissionError`."""
        cable = self._name
        _ip("netns", "add", self._name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("addr", "add", f"{self._here}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        _ip("-n", self._name, "addr", "add", f"{self._there}/30", "dev", "eth0")
        _ip("-n", self._name, "link", "set", "eth0", "up")
        _ip("-n", self._name, "link", "set", "lo", "up")
        _ip("-n", self._name, "route", "add", network, "via", self._here)

    def remove(self) -> None:
        """Take it away; no error where it is gone. What still runs there keeps running, unconnected."""
        for command in (("link", "del", self._name), ("netns", "del", self._name)):
            subprocess.run(["ip", *command], capture_output=True, check=False)

    def lose_answers(self) -> None:
        """What the host sends arrives, and nothing reaches it."""
        _ip("neigh", "replace", self._there, "lladdr", _NOBODY, "dev", self._name, "nud", "permanent")

    def lose_requests(self) -> None:
        """Nothing that the host sends arrives, and what is sent to it does."""
        _ip("-n", self._name, "neigh", "replace", self._here, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")

    def lose_all(self) -> None:
        """Nothing passes; connections stay open."""
        self.lose_answers()
        self.lose_requests()

    def mend(self) -> None:
        """Let everything pass again."""
        for where, address, device in (((), self._there, self._name), (("-n", self._name), self._here, "eth0")):
            subprocess.run(["ip", *where, "neigh", "del", address, "dev", device], capture_output=True, check=False)


class Network:
    """Some hosts and the address at which each of them reaches this machine. Raises `PermissionError` where it cannot be had."""

    def __init__(self, size: int) -> None:
        prefix = f"10.{random.randint(_LEAST, _MOST)}.{random.randint(_LEAST, _MOST)}"
        self.address = f"{prefix}.1"
        self.hosts = [
            NetworkHost(f"loom{os.getpid()}-{number}", f"{prefix}.{4 * number + 1}", f"{prefix}.{4 * number + 2}")
            for number in range(1, size + 1)
        ]
        self._made = ExitStack()

    def __enter__(self) -> Self:
        try:
            _ip("addr", "add", f"{self.address}/32", "dev", "lo")
            self._made.callback(_ip, "addr", "del", f"{self.address}/32", "dev", "lo")
            for host in self.hosts:
                self._made.callback(host.remove)
                host.connect(f"{self.address}/32")
        except BaseException:
            self._made.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._made.close()


class HostedKafka(ApacheKafka):
    """A broker of this machine that the hosts of a network reach as well, at `for_hosts`."""

    def __init__(self, directory: Path, network: Network) -> None:
        port = free_port()
        super().__init__(directory, behind=Behind(port=port, proxy=port, host=network.address))
        self.network = network
        self.for_hosts = f"{network.address}:{port}"


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as problem:
        raise PermissionError(str(problem)) from None
    if done.returncode:
        raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
