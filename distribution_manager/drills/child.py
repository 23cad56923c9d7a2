"""Runs a command that dies with the process that started it: ``python child.py PARENT_PID PROGRAM [ARGUMENT ...]``.

Model: asks the kernel for a SIGKILL when the parent goes (Linux; elsewhere nothing is asked), then becomes the program,
so that the pid that was started is the program's own. A file run by path, with only the standard library, so that it
costs an interpreter's start and no more. The parent that counts is the thread that started it: processes.spawn keeps
one for this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
