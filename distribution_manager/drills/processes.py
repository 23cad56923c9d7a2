"""Processes by identity: a pid together with the moment at which its process started.

Model: pids are used again, so a pid read from a file proves nothing. A ProcessId names one process for ever.
Invariant: no signal goes to a process whose start was not seen to be the recorded one.
"""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from distribution_manager.drills import child

POLL_S: Final = 0.02
_ZOMBIE: Final = "Z"
_FROZEN: Final = frozenset("Tt")
_DEAD: Final = frozenset("ZXx")


class ProcessState(enum.StrEnum):
    UP = "up"
    FROZEN = "frozen"
    STOPPED = "stopped"


class ProcessId(msgspec.Struct, frozen=True):
    """``started``: clock ticks since boot (Linux) or ps's date (elsewhere); only ever compared."""

    pid: int
    started: str


def identify(pid: int) -> ProcessId | None:
    """None when there is no such process, or only what is left of one."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in _DEAD else ProcessId(pid, stat[1])


def state_of(process: ProcessId | None) -> ProcessState:
    stat = None if process is None else _stat(process.pid)
    if process is None or stat is None or stat[1] != process.started or stat[0] in _DEAD:
        return ProcessState.STOPPED
    return ProcessState.FROZEN if stat[0] in _FROZEN else ProcessState.UP


def read_bytes(process: ProcessId | None) -> int:
    """How much the process has read so far, from files and sockets; 0 where that is not known (not Linux)."""
    with suppress(OSError):
        if process is not None:
            for line in Path(f"/proc/{process.pid}/io").read_text(encoding="ascii").splitlines():
                if line.startswith("rchar:"):
                    return int(line.split()[1])
    return 0


def send_signal(process: ProcessId | None, number: signal.Signals) -> bool:
    """Whether the process was there to get it."""
    if process is None or state_of(process) is ProcessState.STOPPED:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_stopped(processes: Sequence[ProcessId | None], timeout_s: float) -> bool:
    """Whether all had ended before the timeout."""
    deadline = time.monotonic() + timeout_s
    while any(state_of(process) is not ProcessState.STOPPED for process in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def spawn(command: Sequence[str], log_path: Path, *, die_with_parent: bool) -> subprocess.Popen[bytes]:
    """Starts a command in a session of its own (a terminal's Ctrl-C does not reach it), its output appended to a file.

    ``command[0]`` is a path. Raises OSError.
    """
    if die_with_parent:
        command = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *command]
    return _spawner.submit(_start, list(command), log_path).result()


# "dies with its parent" means the thread that started it: this one lives as long as the process does
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _start(command: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log:
        # etcd reads ETCD_* too: what the user's shell holds for another etcd must not configure this one
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _stat(pid: int) -> tuple[str, str] | None:
    """A process's state letter and its start."""
    if sys.platform != "linux":
        return _stat_by_ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name, in parentheses, may hold anything, parentheses too; the start is field 22 of proc(5)
    rest = text[text.rindex(")") + 1 :].split()
    state, threads, started = rest[0], int(rest[17]), rest[19]
    # a process whose first thread has ended while others are ending still holds its ports and locks
    return ("R" if state == _ZOMBIE and threads > 1 else state), started


def _stat_by_ps(pid: int) -> tuple[str, str] | None:
    output = subprocess.run(
        ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    letters, _, started = output.partition(" ")
    return (letters[0], started.strip()) if letters else None
