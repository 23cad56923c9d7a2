"""A node as a process: how it starts, what it says when it cannot, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import pytest
from node_harness import Manager, append, sends_entry

WITH_A_DISK_THAT_FAILS = """
import sys
import shadow_nodes.__main__ as program
from shadow_nodes.storage.sqlite import SqliteStore

write = SqliteStore.write
def fail(store, writes):
    if any(item.entries for item in writes):
        raise OSError(5, "Input/output error")
    write(store, writes)
SqliteStore.write = fail
sys.exit(program.main(sys.argv[1:]))
"""


class Process:
    def __init__(self, data: Path, listen: str = "127.0.0.1:0", program: str = "") -> None:
        how = ["-c", program] if program else ["-m", "shadow_nodes"]
        options = ["--node", "n1", "--region", "r1", "--cluster", "c", "--data", str(data), "--listen", listen]
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", *how, *options], stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []

    def until(self, text: str) -> dict[str, object]:
        """The log line that contains the text."""
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.lines.append(line)
            if text in line:
                return json.loads(line)
        raise AssertionError("".join(self.lines))

    def port(self) -> int:
        return int(str(self.until("listening on")["msg"]).split("port ")[1].split(",")[0])

    def end(self) -> tuple[int, str]:
        """The exit status and the rest of stderr."""
        _, rest = self.child.communicate(timeout=30)
        return self.child.returncode, rest


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if process.child.poll() is None:
            process.child.kill()
            process.child.communicate()


def test_a_node_starts_refuses_a_second_and_stops_cleanly(processes: list[Process], tmp_path: Path) -> None:
    processes.append(Process(tmp_path / "data"))
    port = processes[0].port()
    processes += [Process(tmp_path / "data"), Process(tmp_path / "other", f"127.0.0.1:{port}")]
    status, said = processes[1].end()
    assert (status, said.count("\n")) == (1, 1)
    assert "is in use by process" in said
    status, said = processes[2].end()
    assert (status, said.count("\n")) == (1, 1)
    assert "address already in use" in said
    with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        assert json.load(answer)["status"] == "ok"
    processes[0].child.send_signal(signal.SIGTERM)
    status, said = processes[0].end()
    assert status == 0
    assert [json.loads(line)["msg"] for line in said.splitlines()] == ["stopping", "stopped"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_damaged_store_is_replaced_loudly(processes: list[Process], tmp_path: Path) -> None:
    processes.append(Process(tmp_path))
    processes[0].port()
    processes[0].child.terminate()
    assert processes[0].end()[0] == 0
    (tmp_path / "store.db").write_bytes(b"\0" * 8192)
    processes.append(Process(tmp_path))
    line = processes[1].until("replaced by an empty one")
    assert (line["level"], line["node"], line["region"]) == ("error", "n1", "r1")
    with urlopen(f"http://127.0.0.1:{processes[1].port()}/healthz") as answer:
        assert json.load(answer)["store_replaced"]


async def test_a_disk_that_fails_ends_the_process_and_nothing_is_acknowledged(
    processes: list[Process], tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    processes.append(Process(tmp_path, program=WITH_A_DISK_THAT_FAILS))
    manager = await Manager.connect(session, processes[0].port())
    await manager.fence()
    await manager.send(append(1, sends_entry(1)))
    message = await manager.socket.receive(timeout=20)
    assert message.type is not aiohttp.WSMsgType.BINARY
    status, said = processes[0].end()
    assert status == 1
    last = json.loads(said.splitlines()[-1])
    assert last["level"] == "critical"
    assert "Input/output error" in last["msg"]
