"""Other people's servers as processes: started in groups of their own, awaited, and ended with all their children."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0


class Absent(Exception):
    """The system cannot be had here."""


def spawn(command: list[str], log: Path, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """In a process group of its own, with its output in a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )


async def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ends each and everything in its group."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)


def group(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    """The pids of all processes in these processes' groups."""
    leaders = {process.pid for process in processes}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[2]) in leaders:
                    found.append(int(entry.name))
    return found


async def wait_for(what: Callable[[], Awaitable[object]], name: str) -> None:
    """Until ``what`` raises nothing. Raises Absent with its last error."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + START_SECONDS_MAX
    while True:
        try:
            await what()
        except Exception as error:
            if loop.time() > end_s:
                raise Absent(f"{name} did not come up: {error!r}") from error
            await asyncio.sleep(0.1)
        else:
            return


async def wait_for_port(port: int, name: str) -> None:
    async def connect() -> None:
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()

    await wait_for(connect, name)


def beside_python(program: str) -> str | None:
    """A program that came with a package of this environment, else from PATH."""
    path = Path(sys.executable).parent / program
    return str(path) if path.exists() else shutil.which(program)


class Spawned:
    """Base: processes started here."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[subprocess.Popen[bytes]] = []

    async def stop(self) -> None:
        await end(self._processes)

    def pids(self) -> list[int]:
        return group(self._processes)
