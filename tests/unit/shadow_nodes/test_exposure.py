"""What a node shows to slow, rude and unauthenticated peers: snapshots with backpressure, mutual TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from node_harness import SHARD, Manager, append, sends_entry, until

from shadow_nodes import replica_routes
from shadow_nodes.protocol.messages import Appended, Learn, Ping, Pong, Token
from shadow_nodes.replica_routes import ReplicaRoutes
from shadow_nodes.server import NodeServer
from shadow_nodes.storage.memory import MemoryStore


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[ReplicaRoutes]:
    """Those of every node started after this."""
    made: list[ReplicaRoutes] = []
    add_to = ReplicaRoutes.add_to

    def remember(self: ReplicaRoutes, app: aiohttp.web.Application) -> None:
        made.append(self)
        add_to(self, app)

    monkeypatch.setattr(ReplicaRoutes, "add_to", remember)
    return made


async def with_a_large_checkpoint(server: NodeServer, manager: Manager) -> None:
    """About 24 MB of rows: more than socket buffers hold."""
    await manager.fence()
    for seq in range(1, 4):
        await manager.append(seq, sends_entry(seq, operations=110, messages=10, body="x" * 7_000), commit=seq - 1)
    await manager.send(append(4, commit=3), Ping(1))
    await manager.take(Pong)
    assert server.core.replicas[SHARD].checkpoint.seq > 0


async def test_a_copier_that_takes_nothing_delays_nobody_and_is_given_up(
    start_node, connect, session, routes, monkeypatch
) -> None:
    monkeypatch.setattr(replica_routes, "CHUNK_TAKEN_SECONDS_MAX", 0.5)
    server = await start_node(MemoryStore("a"))
    manager = await connect(server)
    await with_a_large_checkpoint(server, manager)
    response = await session.get(f"http://127.0.0.1:{server.port}/replica/{SHARD}/snapshot")
    assert (response.status, routes[0].snapshots) == (200, 1)
    assert await manager.append(4, sends_entry(4), commit=3) == 4
    assert routes[0].snapshots == 1, "still copying"
    await until(lambda: routes[0].snapshots == 0)
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_a_copier_that_goes_away_leaves_nothing_behind(start_node, connect, session, routes) -> None:
    server = await start_node(MemoryStore("a"))
    await with_a_large_checkpoint(server, await connect(server))
    response = await session.get(f"http://127.0.0.1:{server.port}/replica/{SHARD}/snapshot")
    response.close()
    await until(lambda: routes[0].snapshots == 0)


async def test_snapshots_are_bounded_in_number(start_node, connect, session, routes, monkeypatch) -> None:
    monkeypatch.setattr(replica_routes, "SNAPSHOTS_MAX", 1)
    server = await start_node(MemoryStore("a"))
    await with_a_large_checkpoint(server, await connect(server))
    url = f"http://127.0.0.1:{server.port}/replica/{SHARD}/snapshot"
    first = await session.get(url)
    async with session.get(url) as second:
        assert second.status == 503
    first.close()
    await until(lambda: routes[0].snapshots == 0)


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ca.pem``, and ``node.pem`` by it for localhost and 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificates with openssl")
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    (directory / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl("req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    by_ca = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "node.csr", "-out", "node.pem", *by_ca)
    return directory


@pytest.fixture
def secure(certificates: Path) -> dict[str, Path]:
    ca = certificates / "ca.pem"
    pair = {"tls_cert": certificates / "node.pem", "tls_key": certificates / "node.key"}
    return {**pair, "tls_ca": ca, "tls_client_ca": ca}


async def secure_link(session: aiohttp.ClientSession, server: NodeServer) -> Manager:
    socket = await session.ws_connect(f"wss://localhost:{server.port}/link", ssl=server.settings.client_tls())
    manager = Manager(socket)
    await manager.hello()
    return manager


async def test_nodes_copy_over_mutual_tls(start_node: Callable, session, secure) -> None:
    source = await start_node(MemoryStore("a"), **secure)
    target = await start_node(MemoryStore("b"), "b", **secure)
    to_source, to_target = await secure_link(session, source), await secure_link(session, target)
    await to_source.fence()
    await to_source.append(1, sends_entry(1))
    await to_source.send(append(2, commit=1), Ping(1))
    await to_source.take(Pong)
    await to_target.fence()
    await to_target.send(Learn(SHARD, Token(1, 11), f"localhost:{source.port}"))
    await to_target.take(Appended, lambda answer: answer.seq == 1)


async def test_without_a_certificate_nobody_gets_in(start_node, session, secure) -> None:
    server = await start_node(MemoryStore("a"), **secure)
    context = ssl.create_default_context(cafile=str(secure["tls_ca"]))
    with pytest.raises(aiohttp.ClientError):
        async with session.get(f"https://localhost:{server.port}/healthz", ssl=context) as response:
            await response.read()
