"""Hosts of their own: what they send and what they receive can be cut apart."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.network_host import Network
from tests.support.waiting import until

#: sends a number each time a line comes, and says what it received
_PROGRAM = """
import socket, sys
to = sys.argv[1], int(sys.argv[2])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.5)
for line in sys.stdin:
    sent = line.strip().encode()
    client.sendto(sent, to)
    try:
        while client.recv(100) != sent:  # the answer to an earlier one, which came late
            pass
        print(sent.decode(), flush=True)
    except TimeoutError:
        print("nothing", flush=True)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with Network(1) as made:
            yield made
    except PermissionError as problem:
        pytest.skip(str(problem))


def test_each_direction_is_cut_and_mended_for_itself(network: Network) -> None:
    (host,) = network.hosts
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((network.address, 0))
        server.settimeout(0.2)
        command = [*host.command, sys.executable, "-c", _PROGRAM, network.address, str(server.getsockname()[1])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None

            words = map(str, itertools.count())

            def tried() -> tuple[bool, bool]:
                """Whether a request arrived in time, and its answer."""
                assert client.stdin is not None
                assert client.stdout is not None
                word = next(words)
                print(word, file=client.stdin, flush=True)
                arrived = False
                with contextlib.suppress(TimeoutError):
                    while not arrived:
                        asked, by = server.recvfrom(100)
                        arrived = asked.decode() == word  # and not an earlier one, which came late
                        server.sendto(asked, by)
                return arrived, client.stdout.readline().strip() == word

            # What may pass does so at some try; what may not, at none.
            until(lambda: tried() == (True, True))
            host.lose_answers()
            until(lambda: tried() == (True, False))
            host.lose_requests()
            assert tried() == (False, False)
            host.mend()
            until(lambda: tried() == (True, True))
            host.lose_requests()
            assert tried() == (False, False)
            client.stdin.close()
