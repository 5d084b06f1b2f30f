"""The output of one of several processes: whole lines, each behind the number of its process.

The process keeps the reading end too, so that it can still write when its supervisor is gone; it then writes to the streams
of the supervisor itself (`channel`).
"""

from __future__ import annotations

import os

__all__ = ["PrefixedOutput"]

_MOST = 1 << 16
#: bytes; a longer line is passed on in pieces
_LONGEST_LINE = 1 << 20


class PrefixedOutput:
    """One stream of one process, passed on line by line to a descriptor of ours."""

    def __init__(self, prefix: str, target: int) -> None:
        self._prefix = prefix.encode()
        self._target = target
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self._rest = b""

    def fileno(self) -> int:
        """For a selector."""
        return self.read_end

    def started(self) -> None:
        """The process has the writing end."""
        os.close(self.write_end)

    def pass_on(self) -> None:
        """Write the lines that have come. A line that is not finished yet waits for its end."""
        while True:
            try:
                found = os.read(self.read_end, _MOST)
            except BlockingIOError:
                return
            if not found:
                return
            *lines, self._rest = (self._rest + found).split(b"\n")
            if len(self._rest) > _LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], b""
            self._write(lines)

    def close(self) -> None:
        """The process is gone: write what is left of its output."""
        self.pass_on()
        if self._rest:
            self._write([self._rest])
        os.close(self.read_end)

    def _write(self, lines: list[bytes]) -> None:
        text = b"".join(self._prefix + line + b"\n" for line in lines)
        while text:
            try:
                text = text[os.write(self._target, text) :]
            except BrokenPipeError:
                return  # nobody reads our output; the processes run on
