"""A real server on a free loopback port, in a thread of its own; boto3 in either protocol; raw HTTP."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config

from distribution_manager.sqs.config import Gate, SqsConfig
from distribution_manager.sqs.handler import make_endpoint, make_server

from .fake_backend import FakeBackend
from .query_model import write_query_model


class Server:
    """``observed``: what the handler told its metrics callback."""

    def __init__(self, config: SqsConfig, gate: Gate | None = None) -> None:
        self.backend = FakeBackend()
        self.observed: list[tuple[str, str]] = []
        self._endpoint = make_endpoint(
            self.backend,
            config,
            gate,
            now_ms=lambda: self.backend.now_ms,
            observe=lambda operation, code, seconds: self.observed.append((operation, code)),
        )
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(started)))
        self._thread.start()
        started.wait(10)

    async def _serve(self, started: threading.Event) -> None:
        server = make_server(self._endpoint)
        listener = await self._loop.create_server(server, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        listener.close()
        await server.shutdown(1)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, name: str) -> str:
        return f"{self.url}/000000000000/{name}"

    def raw(
        self, body: bytes | str | None, headers: dict[str, str] | None = None, method: str = "POST", path: str = "/"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """(status, headers, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, boto3.session.Session]:
    """By protocol; one each, because reading botocore's data takes time."""
    folder = tmp_path_factory.mktemp("botocore")
    write_query_model(folder)
    query = botocore.session.Session()
    query.set_config_variable("data_path", str(folder))
    return {
        "json": boto3.session.Session(botocore_session=botocore.session.Session()),
        "query": boto3.session.Session(botocore_session=query),
    }


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(config: SqsConfig | None = None, gate: Gate | None = None) -> Server:
        servers.append(Server(config or SqsConfig(), gate))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def connect(sessions: dict[str, boto3.session.Session]) -> Iterator[Callable[..., Any]]:
    """Makes boto3 clients: ``connect(server, "json")`` or ``"query"``."""
    clients = []

    def make(server: Server, protocol: str = "json") -> Any:
        client = sessions[protocol].client(
            "sqs",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=10),
        )
        assert client.meta.service_model.metadata["protocol"] == protocol
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture(params=["json", "query"])
def sqs(server: Server, connect: Callable[..., Any], request: pytest.FixtureRequest) -> Any:
    """boto3 against ``server``, once in each protocol."""
    return connect(server, request.param)
