"""Run a command that the kernel kills as soon as the process that started it is gone.

Brokers and flows under test run in sessions of their own, so that Ctrl-C on a test run does not reach them behind the
test's back. The price: when the test run itself is killed (SIGKILL, a CI time-out) nobody would tell them, and a broker
of half a gigabyte would stay behind. `PR_SET_PDEATHSIG` closes that gap, and survives the `exec` below.

It is set by this small program between the two and not by a `preexec_fn`, because a test process has client threads,
and running Python between fork and exec is unsafe there (Python 3.12 warns about it). Used as
`python -I -S die_with_parent.py PARENT_PID COMMAND...`; the process id stays the one that the parent sees.

Linux sends the signal when the *thread* that started the child ends, so start such processes from the main thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def die_with_parent(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` bound to the life of the calling process.

    Elsewhere than on Linux the command comes back as it is: there it ends only when it is stopped.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    parent, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the call above; nothing would wake us any more
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
