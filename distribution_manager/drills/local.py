"""A whole cluster on one machine: etcd, and in each region a node and a manager, each a real process.

Model: DIR/cluster.json (state.py) is the cluster: its members with their ports and last processes. A LocalCluster reads
it, and where it holds the lock on DIR, starts and stops members and writes it. ``up`` in the foreground, tests and
drills hold the lock while the cluster runs, and the members die with them; a detached cluster's lock is free, and every
command takes it for as long as it works. While somebody else holds it, ``restart`` and ``add`` leave a request
(requests.py), which the holder carries out (serve_requests).
Invariant: a member whose recorded process lives is never started a second time.
"""

from __future__ import annotations

import contextlib
import copy
import http
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from distribution_manager.drills import ports, probes
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.plan import add_region, claim_ports, plan
from distribution_manager.drills.processes import (
    POLL_S,
    ProcessState,
    identify,
    read_bytes,
    send_signal,
    spawn,
    state_of,
    wait_stopped,
)
from distribution_manager.drills.requests import FOLDER, Request, pending
from distribution_manager.drills.state import (
    ClusterError,
    ClusterState,
    DataLock,
    Member,
    load_state,
    make_secret,
    read_secret,
    save_state,
)
from shadow_nodes.protocol.limits import MIB

READY_TIMEOUT_S: Final = 60.0
LOADING_BYTES_MIN: Final = 32 * MIB
"""A node that has read this much within a timeout is still loading: starting Python reads less."""
ADMIN_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_S: Final = 10.0
STOP_ORDER: Final = ("manager", "node", "etcd")
"""Who uses whom: nothing is stopped before what uses it."""


class LocalCluster:
    """The cluster of one data directory.

    ``regions`` and ``port`` (of the first manager; 0 chooses free ones) None: as the directory's cluster has them,
    else the defaults. ``detached``: members outlive this process. Not for use by several threads at once, except for
    kill, freeze and resume.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        regions: Iterable[str] | None = None,
        port: int | None = None,
        detached: bool = False,
        commands: Commands | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._regions = None if regions is None else list(regions)
        self._port = port
        self._detached = detached
        self._commands = commands or Commands()
        self.say: Callable[[str], None] = lambda text: None
        """Told, for people, what is waited for where that takes long."""
        self._lock = DataLock(self.data_dir)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._state: ClusterState | None = None

    @classmethod
    def attach(cls, data_dir: Path, *, commands: Commands | None = None) -> LocalCluster:
        """The cluster that ``data_dir`` holds, running or not. Raises ClusterError where there is none."""
        cluster = cls(data_dir, detached=True, commands=commands)
        cluster._state = load_state(cluster.data_dir)
        if cluster._state is None:
            raise ClusterError(f"{data_dir} holds no cluster: start one with: shadowq up --data {data_dir}")
        return cluster

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # what there is

    @property
    def state(self) -> ClusterState:
        assert self._state is not None, "neither started nor attached"
        return self._state

    @property
    def names(self) -> list[str]:
        return list(self.state.members)

    @property
    def regions(self) -> list[str]:
        return self.state.regions

    @property
    def endpoints(self) -> dict[str, str]:
        """Region -> the URL for SQS clients."""
        managers = (member for member in self.state.members.values() if member.kind == "manager")
        return {member.region: f"http://{ports.LOOPBACK}:{member.ports['client']}" for member in managers}

    @property
    def pids(self) -> dict[str, int | None]:
        """Name -> pid, None where the member is not running."""
        return {name: self._pid(name) for name in self.names}

    def member(self, name: str) -> Member:
        """Raises ClusterError."""
        member = self.state.members.get(name)
        if member is None:
            raise ClusterError(f"{name!r} is none of this cluster's processes: {', '.join(self.names)}")
        return member

    def state_of(self, name: str) -> ProcessState:
        self._reap(name)
        return state_of(self.member(name).process)

    def log_path(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def ask(self, name: str, path: str, timeout_s: float = probes.PROBE_TIMEOUT_S) -> Any:
        """What a node or manager answers to a GET of JSON at ``path``; None when it does not."""
        return probes.get_json(self.member(name).ports["link"], path, timeout_s, read_secret(self.data_dir))

    def promote(self, queue: str, region: str, **more: str) -> dict[str, Any]:
        """Moves a queue's primary and owner to a region, by way of any manager. Raises ClusterError, saying why not."""
        query = urlencode({"queue": queue, "to": region, **more})
        return self._post(f"/admin/promote?{query}", f"{queue} was not promoted")

    def drain(self, name: str, *, undo: bool = False) -> dict[str, Any]:
        """Begins to drain a node or region, or ends that; see look_at_drain. Raises ClusterError, saying why not."""
        return self._post(f"/admin/drain?{urlencode({'name': name, 'undo': int(undo)})}", f"{name} is not drained")

    def look_at_drain(self, name: str) -> dict[str, Any]:
        """How far the draining is: core/draining.py's Drained. Raises ClusterError."""
        return self.ask_any(f"/admin/drain?{urlencode({'name': name})}")

    def rebalancing(self) -> list[dict[str, str]]:
        """The promotions that would spread primaries: core/balance.py's steps. Raises ClusterError."""
        steps: list[dict[str, str]] = self.ask_any("/admin/rebalance")["steps"]
        return steps

    def forget(self, node: str) -> None:
        """Takes away the record of a node that is gone for good. Raises ClusterError, saying why not."""
        self._post(f"/admin/forget?{urlencode({'node': node})}", f"{node} is not forgotten")

    def _post(self, path: str, failed: str) -> dict[str, Any]:
        return self.ask_any(path, method="POST", failed=f"{failed}: ")

    def ask_any(self, path: str, *, method: str = "GET", failed: str = "") -> dict[str, Any]:
        """The JSON that the first manager that answers says. Raises ClusterError, with its reason where it refuses."""
        secret = read_secret(self.data_dir)
        for name in (name for name in self.names if self.member(name).kind == "manager"):
            answer = probes.ask_json(self.member(name).ports["link"], path, ADMIN_TIMEOUT_S, secret, method)
            if answer is not None:
                status, body = answer
                if status != http.HTTPStatus.OK:
                    raise ClusterError(f"{failed}{body.get('error', status)}")
                return body
        raise ClusterError(f"no manager answers: see shadowq status --data {self.data_dir}")

    def _links(self, manager: str, node: str) -> bool:
        """Whether the manager is linked with the node."""
        report = self.ask(manager, "/admin/status")
        rows = report["nodes"] if isinstance(report, dict) else []
        return any(row["name"] == node and row["state"] == "up" for row in rows)

    # starting and stopping

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts everything and waits until it is ready. Raises ClusterError, having cleared away what it began."""
        self._make_directories()
        self._take_lock()
        try:
            self._prepare()
        except BaseException:
            self._lock.release()
            raise
        try:
            self._spawn(name for name in self.names if self.member(name).kind != "manager")
            self.wait_ready(["etcd"], timeout_s)
            self._spawn(name for name in self.names if self.member(name).kind == "manager")
            self.wait_ready(timeout_s=timeout_s)
        except BaseException:
            self.stop()
            raise
        if self._detached:
            self._lock.release()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ends everything, cleanly where possible, and gives up the lock. Raises ClusterError if another holds it."""
        if not self._lock.held:
            self._take_lock()
            self._reload()
        try:
            for kind in STOP_ORDER:
                self._stop([name for name in self.names if self.member(name).kind == kind], timeout_s)
            self.state.supervisor = None
            self._save()
        finally:
            self._lock.release()

    def stop_supervised(self, timeout_s: float = 4 * STOP_TIMEOUT_S) -> bool:
        """Asks the ``up`` that runs this cluster to end it; False when there is none. Raises ClusterError."""
        supervisor = self.state.supervisor
        if not send_signal(supervisor, signal.SIGTERM):
            return False
        if not wait_stopped([supervisor], timeout_s):
            raise ClusterError(f"process {supervisor and supervisor.pid} does not end: look into {self.data_dir}/logs")
        return True

    def restart(self, name: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts a member again (having stopped it if it runs) and waits until it is ready. Raises ClusterError."""
        self.member(name)
        request = Request("restart", name)
        if self._lock.held:
            self._carry_out(request)
        else:
            self._carry_out_sharing(request, timeout_s)
        self.wait_ready([name], timeout_s)

    def add(self, region: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Starts a node and a manager of a new region in a running cluster; waits until both serve and the manager is
        linked with the node. Raises ClusterError."""
        if not any(self._pid(name) for name in self.names):
            raise ClusterError(f"{self.data_dir} is not running: start it with: shadowq up --data {self.data_dir}")
        add_region(copy.deepcopy(self.state), region)
        request = Request("add", region)
        if self._lock.held:
            self._carry_out(request)
        else:
            self._carry_out_sharing(request, timeout_s)
        if region not in self.regions:
            raise ClusterError(f"{region} could not be added: look at what the process that runs {self.data_dir} says")
        deadline = time.monotonic() + timeout_s
        node, manager = f"node-{region}", f"manager-{region}"
        self.wait_ready([node, manager], timeout_s)
        while not self._links(manager, node):
            if time.monotonic() >= deadline:
                raise ClusterError(f"{node} has not joined: {self._last_words(node)}")
            time.sleep(POLL_S)

    def launch(self, name: str) -> None:
        """Starts a member that is not running, without waiting for it. Only while this object holds the lock."""
        assert self._lock.held, "another process starts and stops this cluster's members"
        if self.state_of(name) is ProcessState.STOPPED:
            self._spawn([name])

    def kill(self, *names: str) -> None:
        """kill -9, all before any is waited for. Raises ClusterError if one is not running."""
        self._signal_all(names, signal.SIGKILL)
        if not self._wait_stopped(names, KILL_TIMEOUT_S):
            raise ClusterError(f"{', '.join(names)}: still there {KILL_TIMEOUT_S:.0f} s after SIGKILL")

    def freeze(self, *names: str) -> None:
        """SIGSTOP. Raises ClusterError if one is not running."""
        self._signal_all(names, signal.SIGSTOP)

    def resume(self, *names: str) -> None:
        """SIGCONT. Raises ClusterError if one is not running."""
        self._signal_all(names, signal.SIGCONT)

    # waiting and watching

    def wait_ready(self, names: Iterable[str] | None = None, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the named members (None: all) serve. Raises ClusterError when one ends or time runs out.

        A node serves once it has loaded its replicas: it is given as much time again for as long as it goes on reading.
        """
        deadline = time.monotonic() + timeout_s
        waiting = [self.member(name) for name in (self.names if names is None else names)]
        read = {member.name: read_bytes(member.process) for member in waiting}
        while waiting:
            for member in waiting:
                if self.state_of(member.name) is ProcessState.STOPPED:
                    raise ClusterError(f"{member.name} ended: {self._last_words(member.name)}")
            waiting = [member for member in waiting if not probes.ready(member)]
            if waiting and time.monotonic() >= deadline:
                names = ", ".join(member.name for member in waiting)
                if all(self._loads(member, read) for member in waiting):
                    deadline = time.monotonic() + timeout_s
                    mib = sum(read[member.name] for member in waiting) // MIB
                    self.say(f"{names}: still loading its replicas, {mib} MiB so far: waiting on")
                    continue
                raise ClusterError(
                    f"{names}: not ready after {timeout_s:.0f} s in which it loaded nothing either: "
                    f"look into {self.data_dir}/logs, or wait longer with --wait-s"
                )
            if waiting:
                time.sleep(POLL_S)

    @staticmethod
    def _loads(member: Member, read: dict[str, int]) -> bool:
        """Whether it is a node that has read much since ``read``, which is brought up to date."""
        before, read[member.name] = read[member.name], read_bytes(member.process)
        return member.kind == "node" and read[member.name] - before >= LOADING_BYTES_MIN

    def exit_status(self, name: str) -> int | None:
        """Of a child of this process, as subprocess gives it; None while it runs or where that is not known."""
        child = self._children.get(name)
        return None if child is None else child.poll()

    def serve_requests(self) -> list[str]:
        """Carries out what other processes asked for; the names of the members started."""
        started = []
        for request in pending(self.data_dir):
            before = set(self.names)
            with contextlib.suppress(ClusterError):
                self._carry_out(request)
                started += [name for name in self.names if name not in before] or [request.name]
            request.path(self.data_dir).unlink()
        return started

    # how

    def _pid(self, name: str) -> int | None:
        process = self.member(name).process
        return None if process is None or self.state_of(name) is ProcessState.STOPPED else process.pid

    def _prepare(self) -> None:
        """Everything that can be refused before a process is started."""
        self._state = plan(load_state(self.data_dir), self._regions, self._port)
        running = [name for name in self.names if self.state_of(name) is not ProcessState.STOPPED]
        if running:
            raise ClusterError(
                f"{self.data_dir} is already running ({len(running)} of {len(self.names)} processes): "
                f"stop it with: shadowq down --data {self.data_dir}"
            )
        claim_ports(self._state)
        self._state.supervisor = None if self._detached else identify(os.getpid())
        for request in pending(self.data_dir):
            request.path(self.data_dir).unlink()
        self._save()

    def _make_directories(self) -> None:
        try:
            for folder in (self.data_dir, self.data_dir / "logs", self.data_dir / FOLDER):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_secret(self.data_dir)
        except OSError as error:
            raise ClusterError(f"{self.data_dir} cannot be used ({error.strerror}): use another --data") from error

    def _take_lock(self) -> None:
        try:
            taken = self._lock.acquire()
        except OSError as error:
            raise ClusterError(f"{self.data_dir} cannot be used ({error.strerror}): use another --data") from error
        if not taken:
            state = load_state(self.data_dir)
            holder = f"process {state.supervisor.pid}" if state and state.supervisor else "another process"
            raise ClusterError(
                f"{self.data_dir} is in use by {holder}: stop it with: shadowq down --data {self.data_dir}, "
                "or use another --data"
            )

    def _spawn(self, names: Iterable[str]) -> None:
        for name in names:
            member = self.member(name)
            command = self._commands.command(self.state, member, self.data_dir)
            try:
                child = spawn(command, self.log_path(name), die_with_parent=not self._detached)
            except OSError as error:
                raise ClusterError(f"{name} cannot be started: {error}") from error
            self._children[name] = child
            member.process = identify(child.pid)
        self._save()

    def _restart(self, name: str) -> None:
        self._stop([name], STOP_TIMEOUT_S)
        self._spawn([name])

    def _add(self, region: str) -> None:
        names = add_region(self.state, region)
        self._save()
        self._spawn(names)

    def _carry_out(self, request: Request) -> None:
        if request.action == "add":
            self._add(request.name)
        else:
            self._restart(request.name)

    def _carry_out_sharing(self, request: Request, timeout_s: float) -> None:
        """Takes the lock for it; while a process that runs the cluster has the lock, asks that process."""
        path = request.path(self.data_dir)
        deadline = time.monotonic() + timeout_s
        asked = False
        while not self._lock.acquire():
            if asked and not path.exists():
                self._reload()
                return
            self._reload()
            if not asked and state_of(self.state.supervisor) is not ProcessState.STOPPED:
                path.touch()
                asked = True
            if time.monotonic() >= deadline:
                path.unlink(missing_ok=True)
                raise ClusterError(f"the process that runs {self.data_dir} does not answer: end it, then: shadowq up")
            time.sleep(POLL_S)
        try:
            path.unlink(missing_ok=True)
            self._reload()
            self._carry_out(request)
        finally:
            self._lock.release()

    def _stop(self, names: Iterable[str], timeout_s: float) -> None:
        names = list(names)
        for name in names:
            process = self.member(name).process
            send_signal(process, signal.SIGTERM)
            send_signal(process, signal.SIGCONT)
        if not self._wait_stopped(names, timeout_s):
            for name in names:
                send_signal(self.member(name).process, signal.SIGKILL)
            self._wait_stopped(names, KILL_TIMEOUT_S)
        for name in names:
            if name in self._children:
                self._children[name].wait(KILL_TIMEOUT_S)

    def _signal_all(self, names: Iterable[str], number: signal.Signals) -> None:
        """A name that is none of ours is found before anything is done to the others. Raises ClusterError."""
        for member in [self.member(name) for name in names]:
            self._signal(member.name, number)

    def _signal(self, name: str, number: signal.Signals) -> None:
        if not send_signal(self.member(name).process, number):
            raise ClusterError(f"{name} is not running: start it with: shadowq restart {name} --data {self.data_dir}")

    def _wait_stopped(self, names: Iterable[str], timeout_s: float) -> bool:
        return wait_stopped([self.member(name).process for name in names], timeout_s)

    def _reap(self, name: str) -> None:
        if name in self._children:
            self._children[name].poll()

    def _last_words(self, name: str) -> str:
        path = self.log_path(name)
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1][:300]} (log: {path})"
        return f"it logged nothing to {path}"

    def _reload(self) -> None:
        self._state = load_state(self.data_dir) or self._state

    def _save(self) -> None:
        save_state(self.data_dir, self.state)
