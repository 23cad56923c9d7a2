"""The server over real sockets: order, refusals, bounds, slow, silent and vanishing clients, and its end."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs.backend import Executed
from distribution_manager.sqs.config import Caller, SqsConfig
from distribution_manager.sqs.errors import ACCESS_DENIED, SqsError
from distribution_manager.sqs.handler import make_endpoint, make_server
from distribution_manager.sqs.http.messages import Problem, Request, Response
from distribution_manager.sqs.http.reader import HEAD_BYTES_MAX
from distribution_manager.sqs.http.server import ConnectionBounds, HttpServer
from shadow_nodes.protocol.commands import Command
from shadow_nodes.protocol.limits import MIB

from ..fake_backend import FakeBackend

PATIENCE_S = 10.0
SHORT_S = 0.2
LIST = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 2\r\n\r\n{}"
LIST_HEAD = LIST[:-6]
"""Without the end of the head: for more headers."""
RECEIVE = (
    b"POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\nContent-Length: 41\r\n\r\n"
    b'{"QueueUrl":"orders","WaitTimeSeconds":5}'
)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Stream]]


class Echo:
    """Answers with the path and the body; ``held`` paths wait for ``release``."""

    body_bytes_max = 1_000
    body_seconds_max = 60.0

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.connections: list[object] = []

    async def handle(self, request: Request) -> Response:
        self.seen.append(request.path)
        self.connections.append(request.connection)
        if request.path == "/bug":
            raise ZeroDivisionError
        if request.path == "/held":
            self.started.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return Response(request.path.encode() + request.body, {"X-Scheme": request.scheme, "X-Peer": request.remote})

    def refuse(self, request: Request) -> Response | None:
        return Response(b"stranger", {}, 403) if request.path == "/stranger" else None

    def complain(self, request: Request | None, problem: Problem) -> Response:
        return Response(problem.reason.encode(), {"X-Path": request.path if request else ""}, problem.status)


class Guard:
    """Lets nobody in."""

    def admit(self, request: Request) -> None:
        raise SqsError(ACCESS_DENIED, "Who are you?")

    def authorize(self, request: Request, body: bytes) -> Caller:
        raise SqsError(ACCESS_DENIED, "Who are you?")

    def permit(self, caller: Caller, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        raise AssertionError("not asked")


class Started:
    """A server, its application, and connections to it."""

    def __init__(self, server: HttpServer, listener: Any) -> None:
        self.server = server
        self.listener = listener
        self.address: tuple[str, int] = listener.sockets[0].getsockname()
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, **options: Any) -> Stream:
        reader, writer = await asyncio.open_connection(*self.address, **options)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        self.listener.close()
        for writer in self.writers:
            writer.close()
        await self.server.shutdown(1)


Start = Callable[..., Awaitable[Started]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    servers: list[Started] = []

    async def make(application: Any, bounds: ConnectionBounds | None = None, **options: Any) -> Started:
        server = make_server(application, bounds)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, **options)
        servers.append(Started(server, listener))
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


def endpoint(backend: Any = None, gate: Any = None, **config: Any) -> Any:
    return make_endpoint(backend or FakeBackend(), SqsConfig(**config), gate)


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def answer(reader: asyncio.StreamReader, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    """(status, headers in lower case, body)"""
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        content = await reader.readexactly(int(headers["content-length"])) if body else b""
    return int(status.split(" ")[1]), headers, content


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(3 * PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - nothing else tells of a connection's end
            await asyncio.sleep(SHORT_S / 10)


def get(path: str, more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def post(path: str, body: bytes, more: str = "") -> bytes:
    return get(path, f"Content-Length: {len(body)}\r\n{more}", "POST") + body


# --- answers -------------------------------------------------------------------------------------------------------


async def test_an_answer_and_what_a_request_says_of_its_connection(start: Start) -> None:
    echo = Echo()
    server = await start(echo)
    reader, writer = await server.connect()
    writer.write(get("/a?b"))
    status, headers, body = await answer(reader)
    assert (status, body) == (200, b"/a")
    assert headers.keys() == {"x-scheme", "x-peer", "date", "content-length"}
    assert (headers["x-scheme"], headers["x-peer"]) == ("http", "127.0.0.1")
    assert headers["date"].endswith(" GMT")
    writer.write(post("/b", b"c"))
    assert (await answer(reader))[2] == b"/bc"
    assert len(set(echo.connections)) == 1, "as limits of connections per key need it"
    connection: Any = echo.connections[0]
    assert connection.transport is not None
    writer.close()
    await until(lambda: connection.transport is None)


async def test_byte_by_byte(start: Start) -> None:
    server = await start(Echo())
    reader, writer = await server.connect()
    chunked = get("/c", "Transfer-Encoding: chunked\r\n", "POST") + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    for byte in get("/a") + post("/b", b"123") + chunked:
        writer.write(bytes([byte]))
        await writer.drain()
    assert [(await answer(reader))[2] for _ in range(3)] == [b"/a", b"/b123", b"/cabc"]


async def test_pipelined_requests_are_answered_in_order(start: Start) -> None:
    """Whatever becomes of them: held, refused before their body, too large, unreadable."""
    echo = Echo()
    server = await start(echo)
    reader, writer = await server.connect()
    writer.write(
        get("/held") + get("/b") + post("/large", b"x" * 1_001) + post("/c", b"d") + post("/stranger", b"")[:-2]
    )
    await echo.started.wait()
    writer.write(b"\r\n" + post("/late", b"x" * 1_001)[:-5])
    writer.write(b"xxxxx" + get("/e") + b"\0" + get("/never"))
    assert echo.seen == ["/held"], "one at a time"
    echo.release.set()
    expected = [
        (200, b"/held"),
        (200, b"/b"),
        (413, b"HTTP content length exceeded 1000 bytes."),
        (200, b"/cd"),
        (200, b"/stranger"),
        (413, b"HTTP content length exceeded 1000 bytes."),
        (200, b"/e"),
    ]
    assert [(await answer(reader))[::2] for _ in expected] == expected
    status, headers, _ = await answer(reader)
    assert (status, headers["connection"]) == (400, "close")
    assert await ends(reader) == b""


async def test_head_has_no_body(start: Start) -> None:
    server = await start(Echo())
    reader, writer = await server.connect()
    writer.write(get("/a", method="HEAD") + get("/b"))
    status, headers, _ = await answer(reader, body=False)
    assert (status, headers["content-length"]) == (200, "2")
    assert (await answer(reader))[2] == b"/b"


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", "close"),
        (b"GET / HTTP/1.0\r\n", "close"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", "keep-alive"),
    ],
)
async def test_who_says_when_a_connection_ends(start: Start, head: bytes, connection: str) -> None:
    server = await start(Echo())
    reader, writer = await server.connect()
    writer.write(head + b"\r\n")
    assert (await answer(reader))[1]["connection"] == connection
    if connection == "close":
        assert await ends(reader) == b""
    else:
        writer.write(head + b"\r\n")
        assert (await answer(reader))[0] == 200


async def test_a_bug_ends_the_connection_and_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    server = await start(Echo())
    reader, writer = await server.connect()
    writer.write(get("/bug"))
    assert await ends(reader) == b""
    assert "ZeroDivisionError" in caplog.text


# --- bodies --------------------------------------------------------------------------------------------------------


async def test_expect_continue(start: Start) -> None:
    """The 100 waits for the answers to what came before."""
    echo = Echo()
    server = await start(echo)
    reader, writer = await server.connect()
    expecting = post("/a", b"bc", "Expect: 100-Continue\r\n")
    writer.write(get("/held") + expecting[:-2])
    await echo.started.wait()
    echo.release.set()
    assert (await answer(reader))[2] == b"/held"
    assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"bc" + expecting)
    assert (await answer(reader))[2] == b"/abc"
    assert (await answer(reader))[2] == b"/abc", "no 100 where the body is there already"


async def test_who_expects_and_is_refused_is_not_heard_further(start: Start) -> None:
    """Whether the next bytes would be the body or another request, nobody can tell."""
    echo = Echo()
    server = await start(echo)
    for path, status in (("/stranger", 403), ("/a", 413)):
        reader, writer = await server.connect()
        body = get("/smuggled") + b"x" * (900 if status == 403 else 1_000)
        writer.write(post(path, body, "Expect: 100-continue\r\n")[: -len(body)])
        got, headers, _ = await answer(reader)
        assert (got, headers["connection"]) == (status, "close")
        writer.write(get("/smuggled"))
        assert await ends(reader) == b""
    assert echo.seen == []


async def test_a_stranger_is_answered_before_the_body_and_may_go_on_after_it(start: Start) -> None:
    server = await start(Echo())
    reader, writer = await server.connect()
    writer.write(post("/stranger", b"x" * 1_000)[:-500])
    assert (await answer(reader))[0] == 403
    writer.write(b"x" * 500 + get("/b"))
    assert (await answer(reader))[2] == b"/b"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_a_refusal_reaches_who_sends_on_after_it(start: Start, secure: bool, certificate: Path) -> None:
    """More than the kernel buffers: closing at once would reset the connection, and lose the answer."""
    options, trusting = tls(certificate) if secure else ({}, {})
    server = await start(Echo(), **options)
    reader, writer = await server.connect(**trusting)
    writer.write(post("/a", b"x" * 16 * MIB, "Connection: close\r\n"))
    await writer.drain()
    assert (await answer(reader))[0] == 413
    reader, writer = await server.connect(**trusting)
    writer.write(b"\0" + b"x" * 16 * MIB)
    await writer.drain()
    assert (await answer(reader))[0] == 400


async def test_a_body_must_come_in_time(start: Start) -> None:
    server = await start(endpoint(body_seconds_max=SHORT_S))
    reader, writer = await server.connect()
    writer.write(LIST[:-1])
    status, headers, body = await answer(reader)
    assert (status, headers["connection"]) == (408, "close")
    assert b"RequestTimeoutException" in body
    assert await ends(reader) == b""


async def test_a_body_must_come_in_time_behind_a_request_that_runs(start: Start) -> None:
    echo = Echo()
    echo.body_seconds_max = SHORT_S
    server = await start(echo)
    reader, writer = await server.connect()
    writer.write(get("/held") + post("/a", b"bc")[:-1])
    [connection] = server.server.connections
    await until(lambda: connection.waiting == 1)
    echo.release.set()
    assert (await answer(reader))[2] == b"/held"
    assert (await answer(reader))[0] == 408
    assert await ends(reader) == b""


async def test_a_body_that_is_dropped_must_come_in_time(start: Start) -> None:
    echo = Echo()
    echo.body_seconds_max = SHORT_S
    server = await start(echo)
    reader, writer = await server.connect()
    writer.write(post("/stranger", b"bc")[:-1])
    assert (await answer(reader))[0] == 403
    assert await ends(reader) == b""


# --- the API's own words -------------------------------------------------------------------------------------------

TARGET = "X-Amz-Target: AmazonSQS.ListQueues\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "type_"),
    [
        (get("/", TARGET + "Host: y\r\n", "POST"), 400, "InvalidHttpRequest"),
        (get("/", TARGET + "Transfer-Encoding: gzip, chunked\r\n", "POST"), 501, "NotImplementedException"),
        (get("/", TARGET + "Transfer-Encoding: chunked\r\n", "POST") + b"x", 400, "InvalidHttpRequest"),
        (get("/", TARGET + f"Content-Length: {9 * MIB}\r\n", "POST"), 413, "RequestEntityTooLarge"),
        (
            get("/", TARGET + "Transfer-Encoding: chunked\r\n", "POST") + b"1;" + b"x" * 2 * HEAD_BYTES_MAX,
            431,
            "RequestHeaderFieldsTooLarge",
        ),
    ],
    ids=["two hosts", "coding", "chunk", "too large", "extension"],
)
async def test_errors_in_both_protocols(start: Start, sent: bytes, status: int, type_: str) -> None:
    server = await start(endpoint())
    reader, writer = await server.connect()
    writer.write(sent)
    got, headers, body = await answer(reader)
    assert (got, headers["content-type"]) == (status, "application/x-amz-json-1.0")
    assert json.loads(body)["__type"] == f"com.amazon.coral.service#{type_}"
    assert headers["x-amzn-requestid"]
    reader, writer = await server.connect()
    writer.write(sent.replace(TARGET.encode(), b""))
    got, headers, body = await answer(reader)
    assert (got, headers["content-type"]) == (status, "text/xml")
    assert b"<ErrorResponse" in body


@pytest.mark.parametrize(
    ("sent", "status"), [(b"GET / FTP/1.1\r\n", 400), (get("/" + "a" * 2 * HEAD_BYTES_MAX), 431)], ids=["400", "431"]
)
async def test_errors_where_the_protocol_is_not_known(start: Start, sent: bytes, status: int) -> None:
    observed: list[tuple[str, str]] = []
    made = make_endpoint(FakeBackend(), SqsConfig(), observe=lambda name, code, seconds: observed.append((name, code)))
    server = await start(made)
    reader, writer = await server.connect()
    writer.write(sent)
    got, headers, body = await answer(reader)
    assert (got, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert body.endswith(b".\n")
    assert await ends(reader) == b""
    assert len(observed) == 1


async def test_strangers_get_the_apis_error(start: Start) -> None:
    server = await start(endpoint(gate=Guard()))
    reader, writer = await server.connect()
    for part in (LIST[:-1], LIST):
        writer.write(part)
        status, headers, _ = await answer(reader)
        assert (status, headers["x-amzn-query-error"]) == (403, "AccessDenied;Sender")
        writer.write(b"}" if part is not LIST else b"")


# --- clients that are slow, silent or too many ---------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a head"])
async def test_a_first_head_must_come_in_time(start: Start, sent: bytes) -> None:
    server = await start(endpoint(), ConnectionBounds(first_head_seconds=SHORT_S))
    reader, writer = await server.connect()
    writer.write(sent)
    assert await ends(reader) == b""


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\n"], ids=["silent", "half a head"])
async def test_an_idle_connection_ends(start: Start, sent: bytes) -> None:
    server = await start(endpoint(), ConnectionBounds(first_head_seconds=SHORT_S, idle_seconds=3 * SHORT_S))
    reader, writer = await server.connect()
    began = asyncio.get_running_loop().time()
    writer.write(LIST)
    assert (await answer(reader))[0] == 200
    writer.write(sent)
    await ends(reader)
    assert asyncio.get_running_loop().time() - began > 2 * SHORT_S, "the first head's clock has stopped"
    assert server.server.connections == set()


async def test_a_long_answer_is_not_idleness(start: Start) -> None:
    echo = Echo()
    server = await start(echo, ConnectionBounds(first_head_seconds=SHORT_S, idle_seconds=SHORT_S))
    waiting = [await server.connect() for _ in range(2)]
    silent, _ = await server.connect()
    waiting[0][1].write(get("/held"))
    waiting[1][1].write(get("/held") + get("/b"))
    assert await ends(silent) == b""
    silent, _ = await server.connect()
    assert await ends(silent) == b"", "by now the others are past both bounds"
    echo.release.set()
    for reader, _ in waiting:
        assert (await answer(reader))[2] == b"/held"
        await ends(reader)


async def test_connections_are_bounded(start: Start) -> None:
    started = await start(endpoint(), ConnectionBounds(connections_max=2))
    server = started.server
    open_ones = [await started.connect() for _ in range(2)]
    for reader, writer in open_ones:
        writer.write(LIST)
        assert (await answer(reader))[0] == 200
    reader, writer = await started.connect()
    assert await ends(reader) == b""
    assert server.refused == 1
    open_ones[0][1].close()
    await until(lambda: len(server.connections) < 2)
    reader, other = await started.connect()
    other.write(LIST)
    assert (await answer(reader))[0] == 200


async def test_what_is_read_ahead_is_bounded(start: Start) -> None:
    """A client that pipelines without end has to wait, and loses nothing."""
    echo = Echo()
    server = await start(echo)
    reader, writer = await server.connect()
    count = 200_000
    writer.write(get("/held"))
    await echo.started.wait()
    sending = asyncio.ensure_future(asyncio.wait_for(send_all(writer, get("/b") * count), 6 * PATIENCE_S))
    [connection] = server.server.connections
    await until(lambda: connection.reading_paused)
    assert connection.transport is not None
    assert not connection.transport.is_reading()
    assert not sending.done()
    assert len(echo.seen) == 1
    echo.release.set()
    assert (await answer(reader))[2] == b"/held"
    for _ in range(count):
        await reader.readuntil(b"\r\n\r\n/b")
    await sending


async def test_the_smallest_requests_that_wait_are_bounded_too(start: Start) -> None:
    """They come in pieces, and the last piece's are all there before reading pauses."""
    echo = Echo()
    server = await start(echo)
    _, writer = await server.connect()
    writer.write(get("/held"))
    await echo.started.wait()
    smallest = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
    writer.write(smallest * 20_000)
    [connection] = server.server.connections
    await until(lambda: connection.reading_paused)
    assert connection.waiting < 200


async def send_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel's clock is Linux's")
async def test_who_does_not_read_answers_is_let_go(start: Start) -> None:
    backend = FakeBackend()
    started = await start(endpoint(backend), ConnectionBounds(unread_seconds=SHORT_S))
    server = started.server
    await backend.create_queue("q" * 80, {}, {}, None)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, started.address)
    sending = loop.create_task(loop.sock_sendall(connection, LIST * 100_000))
    try:
        await until(lambda: bool(server.connections))
        await until(lambda: not server.connections)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        connection.close()


async def test_who_pipelines_and_reads_too_slowly_is_let_go(start: Start) -> None:
    """Whoever reads a little now and then keeps the kernel's clock from ringing."""
    started = await start(endpoint(), ConnectionBounds(idle_seconds=SHORT_S, unread_seconds=100 * PATIENCE_S))
    server = started.server
    reader, writer = await started.connect()
    sending = asyncio.ensure_future(send_all(writer, LIST * 200_000))
    await until(lambda: bool(server.connections))
    await until(lambda: not server.connections)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert reader.at_eof() is False, "it was not read to the end"


async def test_the_last_answer_has_time_of_its_own(start: Start) -> None:
    """Not what was left of the time for the request's head."""

    class Large(Echo):
        async def handle(self, request: Request) -> Response:
            await super().handle(request)
            return Response(b"x" * 32 * MIB, {})

    large = Large()
    started = await start(large, ConnectionBounds(first_head_seconds=SHORT_S, idle_seconds=10 * PATIENCE_S))
    reader, writer = await started.connect()
    writer.write(get("/held", "Connection: close\r\n"))
    await large.started.wait()
    large.release.set()
    silent, _ = await started.connect()
    assert await ends(silent) == b"", "by now the time for a head is past"
    assert len((await ends(reader)).partition(b"\r\n\r\n")[2]) == 32 * MIB


@pytest.mark.parametrize("name", ["connections_max", "first_head_seconds", "idle_seconds", "unread_seconds"])
def test_bounds_are_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ConnectionBounds(**{name: 0})


# --- clients that go away ------------------------------------------------------------------------------------------


class PatientBackend(FakeBackend):
    """Receives wait until they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def execute(self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0, key: str = "") -> Executed:
        self.waiting.set()
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_goes_away_waits_for_no_message(start: Start, reset: bool) -> None:
    backend = PatientBackend()
    await backend.create_queue("orders", {}, {}, None)
    server = await start(endpoint(backend))
    _, writer = await server.connect()
    writer.write(RECEIVE)
    async with asyncio.timeout(PATIENCE_S):
        await backend.waiting.wait()
        if reset:
            writer.transport.abort()
        else:
            writer.close()
        await backend.cancelled.wait()
    assert server.server.connections == set()


async def test_what_waits_behind_it_goes_too(start: Start) -> None:
    echo = Echo()
    server = await start(echo)
    _, writer = await server.connect()
    writer.write(get("/held") + get("/b"))
    async with asyncio.timeout(PATIENCE_S):
        await echo.started.wait()
        writer.close()
        await echo.cancelled.wait()
    assert echo.seen == ["/held"]


# --- the server's end ----------------------------------------------------------------------------------------------


async def test_shutdown_ends_idle_connections_and_finishes_requests(start: Start) -> None:
    echo = Echo()
    started = await start(echo)
    idle, writer = await started.connect()
    writer.write(get("/a"))
    await answer(idle)
    silent, _ = await started.connect()
    busy, writer = await started.connect()
    writer.write(get("/held") + get("/never"))
    await echo.started.wait()
    started.listener.close()
    ending = asyncio.ensure_future(started.server.shutdown(PATIENCE_S))
    assert await ends(idle) == b""
    assert await ends(silent) == b""
    assert not ending.done()
    echo.release.set()
    status, headers, _ = await answer(busy)
    assert (status, headers["connection"]) == (200, "close")
    assert await ends(busy) == b""
    await asyncio.wait_for(ending, PATIENCE_S)
    assert echo.seen == ["/a", "/held"]


async def test_shutdown_is_bounded(start: Start) -> None:
    echo = Echo()
    started = await start(echo)
    reader, writer = await started.connect()
    writer.write(get("/held"))
    half, other = await started.connect()
    other.write(post("/a", b"b")[:-1])
    await echo.started.wait()
    await asyncio.wait_for(started.server.shutdown(SHORT_S), PATIENCE_S)
    assert await ends(reader) == b""
    assert await ends(half) == b""
    await asyncio.wait_for(echo.cancelled.wait(), PATIENCE_S)


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, signed by itself, with its key in the same file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=me")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    made = subprocess.run(
        ["openssl", "req", "-x509", *elliptic, *names, "-keyout", "-"], check=True, capture_output=True
    )
    file.write_bytes(made.stdout)
    return file


def tls(certificate: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(options of create_server, of open_connection)"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return {"ssl": context}, {"ssl": ssl.create_default_context(cafile=str(certificate))}


async def test_over_tls(start: Start, certificate: Path) -> None:
    options, trusting = tls(certificate)
    server = await start(Echo(), **options)
    reader, writer = await server.connect(**trusting)
    writer.write(post("/a", b"b" * 900) + get("/c"))
    assert (await answer(reader))[1]["x-scheme"] == "https"
    assert (await answer(reader))[2] == b"/c"
