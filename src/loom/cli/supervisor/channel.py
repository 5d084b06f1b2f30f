"""What a supervised run reports to its supervisor, over a socket that only the two of them hold.

The run writes a line when offsets are committed, once per epoch. The supervisor writes nothing; the run only notices when
it is gone. Used by `supervise` on one side and by `loom run` on the other.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from loom.cli.exit_codes import Exit
from loom.cli.supervisor.recorder import Recorder
from loom.core.model import LoomFrozenStruct
from loom.streaming.record import TopicPartition
from loom.streaming.runtime.supervised import Isolation

__all__ = ["MARK", "RESTARTS", "ChildEnd", "Report", "SupervisorEnd"]

#: The environment variable that marks a supervised run. It holds the numbers of its end of the socket and of the recorder; where
#: its output goes to the supervisor, also those of the supervisor's streams and of the reading ends of its own.
MARK = "LOOM_SUPERVISOR_FD"
#: and the one that says how often it has been started again before
RESTARTS = "LOOM_SUPERVISED_RESTARTS"

#: seconds that a run whose supervisor is gone has for stopping in order, where the config does not say
_ORPHAN = 30.0
#: seconds that a run waits at its end for a supervisor that does not listen
_LAST_WORD = 5.0
_AGAIN = 0.01


class Report(LoomFrozenStruct):
    """One line."""

    #: the changed offsets at which the next run would start, by partition
    positions: dict[str, int] = {}
    #: the run ends, and it is the broker that is at fault
    broker: bool = False
    #: the exit code that the runner is about to end the process with
    exit: int | None = None
    #: the isolated records are past, so the run that ends is to be followed by one as any other
    again: bool = False


class ChildEnd:
    """The end that a supervised run holds. Its methods may be called from any thread and do not wait."""

    def __init__(self, descriptor: int, recorder: Recorder | None = None) -> None:
        #: a program that the flow starts must not hold it: it would seem to be the run
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._recorder = recorder
        self._again = False
        #: how often this process has been started again before
        self.restarts = 0
        self._lock = threading.Lock()
        self._positions: dict[str, int] = {}
        self._unsent = b""
        #: seconds that the run has for stopping when its supervisor is gone
        self.orphan_limit_s = _ORPHAN
        #: the streams of the supervisor, where our own lead to it
        self._streams: tuple[int, ...] = ()

    @classmethod
    def from_environment(cls) -> ChildEnd | None:
        """The end of this process, or `None` if it is not supervised. Removes the mark from the environment."""
        descriptor = os.environ.pop(MARK, None)
        if descriptor is None:
            return None
        link, *rest = [int(number) for number in descriptor.split(",")]
        end = cls(link, Recorder(rest[0]) if rest else None)
        end.restarts = int(os.environ.pop(RESTARTS, "0"))
        end._keep_streams(rest[1:])
        threading.Thread(target=end._listen, name="loom-supervisor", daemon=True).start()
        return end

    @property
    def isolation(self) -> Isolation | None:
        """Which records are to be processed one at a time."""
        return self._recorder.isolation if self._recorder is not None else None

    def moved(self, positions: Mapping[TopicPartition, int]) -> None:
        """Offsets were committed."""
        if self._recorder is not None:
            self._recorder.committed(positions)
        with self._lock:
            self._positions.update({str(partition): offset for partition, offset in positions.items()})
            self._send()

    def broker_fault(self) -> None:
        """The run is about to end because of the broker."""
        with self._lock:
            self._unsent += _line(Report(broker=True))
            self._send()

    def reads(self, positions: Mapping[TopicPartition, int]) -> None:
        """Partitions have been read so far."""
        if self._recorder is not None:
            self._recorder.reads(positions)

    def works_on(self, partition: TopicPartition, offset: int, *, alone: bool) -> None:
        """An isolated record is about to be processed."""
        if self._recorder is not None:
            self._recorder.works_on(partition, offset, alone=alone)

    def works_on_nothing(self) -> None:
        """What the record that was alone became is durable."""
        if self._recorder is not None:
            self._recorder.works_on_nothing()

    def isolation_over(self) -> None:
        """The isolated records are past, and the run ends for that."""
        self._again = True

    def ends(self, code: int) -> None:
        """The runner is about to end the process with this code. Waits a moment for a supervisor that is busy."""
        with self._lock:
            self._unsent += _line(Report(exit=code, again=self._again and code == Exit.DONE))
            until = time.monotonic() + _LAST_WORD
            while self._send() and time.monotonic() < until:
                time.sleep(_AGAIN)

    def _send(self) -> bool:
        """Send what goes without waiting; a supervisor that does not listen may not hold up the flow.

        Tells whether there is more to send that may go later.
        """
        if self._positions and not self._unsent:
            self._unsent, self._positions = _line(Report(self._positions)), {}
        try:
            sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True  # full: the next epoch tells it
        except OSError:
            return False  # the supervisor is gone, which `_listen` notices
        self._unsent = self._unsent[sent:]
        return bool(self._unsent)

    def _keep_streams(self, descriptors: Sequence[int]) -> None:
        """The supervisor's output and error, and the reading ends of ours: nothing that is written meets a closed pipe."""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._streams = tuple(descriptors[:2])

    def _listen(self) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass
        for number, stream in enumerate(self._streams, 1):
            os.dup2(stream, number)
        print("loom: the supervisor is gone; the flow stops", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(self.orphan_limit_s)
        os._exit(Exit.FORCED)


class SupervisorEnd:
    """The end that the supervisor holds."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._socket = ours
        self._rest = b""

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Report], bool]:
        """The reports since the last call, and whether more may come."""
        reports: list[Report] = []
        while True:
            try:
                received = self._socket.recv(65536)
            except BlockingIOError:
                return reports, True
            except OSError:
                return reports, False
            if not received:
                return reports, False
            *lines, self._rest = (self._rest + received).split(b"\n")
            reports += [msgspec.json.decode(line, type=Report) for line in lines]

    def close(self) -> None:
        """Close the socket; a run that is still alive notices it."""
        self._socket.close()


def _line(report: Report) -> bytes:
    return msgspec.json.encode(report) + b"\n"
