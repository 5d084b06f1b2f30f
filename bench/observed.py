"""What it costs to be observed: the contenders of `memory` and `kafka` with metrics, and with traces at 1 %.

The collector of the traces is a process of its own, which takes what comes: a contender pays for making and sending spans alone.
It is started once in a process, before anything is measured.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any

from tests.support.die_with_parent import die_with_parent

__all__ = ["METRICS", "collector", "stand_by", "traces"]

#: the `observability` section of a run that is scraped by nobody
METRICS: dict[str, Any] = {"prometheus": {"config": {"port": 0}}}


def traces(endpoint: str) -> dict[str, Any]:
    """The `observability` section of a run that sends one record in a hundred to a collector."""
    return {"otel": {"endpoint": endpoint, "sample_ratio": 0.01}}


@cache
def collector() -> str:
    """The address of a collector, which is there until this process ends."""
    process = subprocess.Popen(
        die_with_parent([sys.executable, "-m", "bench.observed"]), stdout=subprocess.PIPE, text=True
    )
    atexit.register(_end, process)
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stand_by() -> None:
    """What is there before the first record is followed: the collector, and the modules, as those of all contenders are."""
    import_module("loom.core.observability.otel_observer")
    collector()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
