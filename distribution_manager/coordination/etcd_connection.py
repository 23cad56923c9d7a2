"""Connections to etcd: one per endpoint, one of them in use; every call bounded and its failure classified.

Model: calls go to the endpoint in use until one fails for want of an answer; then the next endpoint is in use and the
old one is suspect. (gRPC's own round robin keeps sending every n-th call to a member that is frozen or cut off from its
peers.) Endpoints are IP addresses here; which ones, etcd_names.py says, at any time anew.
Invariant: a call that may change something is sent only on a connection whose last call was answered; on a suspect one
a linearizable read goes first. So while etcd is away, transactions fail as surely not sent, and only those that were
under way when it went have an unknown outcome. No decision rests on the text of a gRPC error; two rest on messages of
etcd's own, which its clients are meant to compare.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from distribution_manager.coordination.etcd3_protobuf import etcd3, etcdrpc
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.coordination.interface import CoordinationUnavailable, Counters
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError
from shadow_nodes.resolve import Endpoint

NO_LEADER = "etcdserver: no leader"
"""etcd's answer, before it looks at the request, to a call with this metadata while its member knows no leader."""
REQUIRE_LEADER = ("hasleader", "true")
OLD_AUTH_REVISION = "etcdserver: revision of auth store is old"

UNANSWERED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
        # etcd answers so when its quota is full: sometimes before, sometimes after it applied the transaction.
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


class LeaseNotFoundError(CoordinationUnavailable):
    """The session's lease is gone; a new one is being granted."""


class CompactedError(RejectedError):
    """The revision asked for is compacted, or lies in the future."""


@dataclass(eq=False)
class Connection:
    target: Endpoint
    client: Any
    trusted: bool = False
    """Its last call was answered."""
    streams: set[Callable[[], None]] = field(default_factory=set)
    """What ends each watch that runs on it."""

    @property
    def endpoint(self) -> str:
        """For messages."""
        return f"{self.target.host}:{self.target.port}"

    def end_streams(self) -> None:
        for end in list(self.streams):
            end()


class Connections:
    """``on_suspect`` is called when an endpoint has failed to answer."""

    def __init__(
        self, settings: EtcdSettings, counters: Counters, on_suspect: Callable[[Endpoint], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.counters = counters
        self.healthy = False
        self._on_suspect = on_suspect
        self._all: list[Connection] = []
        self._used: Connection | None = None
        self._retired: list[Connection] = []
        self._closed = False
        self._token: str | None = None
        self._authenticating = asyncio.Lock()

    def set_targets(self, targets: list[Endpoint]) -> None:
        """Where etcd is, in the order in which to try them. Connects nothing yet; what is unchanged stays connected.

        Reads the certificates.
        """
        if self._closed:
            return
        known = {connection.target: connection for connection in self._all}
        wanted = dict.fromkeys(targets)
        self._all = [known.pop(target) if target in known else self._open(target) for target in wanted]
        if self._used not in self._all:
            self._used = self._all[0] if self._all else None
        for connection in known.values():
            connection.end_streams()
            self._retired.append(connection)
            # calls under way keep their time: closing cuts them off, and leaves the outcome of changes unknown
            asyncio.get_running_loop().call_later(self.settings.call_timeout_s, self._close_retired, connection)

    def _close_retired(self, connection: Connection) -> None:
        if connection in self._retired:
            self._retired.remove(connection)
            connection.client.close()

    def _open(self, target: Endpoint) -> Connection:
        settings = self.settings
        client = etcd3.Etcd3Client(
            # gRPC is told what it is, and asks no DNS of its own
            host=f"ipv6:{target.host}" if ":" in target.ip else f"ipv4:{target.ip}",
            port=target.port,
            ca_cert=settings.ca,
            cert_cert=settings.cert,
            cert_key=settings.key,
            timeout=settings.call_timeout_s,
            grpc_options=settings.grpc_options("" if target.name == target.ip else target.name),
        )
        return Connection(target, client)

    def close(self) -> None:
        self._closed = True
        for connection in [*self._all, *self._retired]:
            connection.end_streams()
            connection.client.close()
        self._all.clear()
        self._retired.clear()
        self._used = None

    def current(self) -> Connection:
        """Raises CoordinationUnavailable."""
        if self._used is None:
            reason = "coordination is closed" if self._closed else "etcd: no endpoint's name has an address yet"
            raise CoordinationUnavailable(reason)
        return self._used

    def suspect(self, connection: Connection) -> None:
        """An answer failed to come. Its watches move to another member; with one member only, they wait for it."""
        connection.trusted = False
        if connection is not self._used:
            return
        self._on_suspect(connection.target)
        self._used = self._all[(self._all.index(connection) + 1) % len(self._all)]
        if len(self._all) > 1:
            connection.end_streams()

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        if not self.settings.user:
            return (REQUIRE_LEADER,)
        async with self._authenticating:
            if self._token is None:
                self._token = await self._authenticate()
        return (REQUIRE_LEADER, ("token", self._token))

    def forget_token(self) -> None:
        """Tokens expire (simple ones after 5 minutes without a call) and die with their etcd: authenticate again."""
        self._token = None

    async def _authenticate(self) -> str:
        connection = self.current()
        request = etcdrpc.AuthenticateRequest(name=self.settings.user, password=self.settings.password)
        stub = etcdrpc.AuthStub(connection.client.channel)
        try:
            response = await answer_of(stub.Authenticate.future(request, self.settings.call_timeout_s / 2))
        except grpc.RpcError as error:
            raise self._classified(connection, error, changes=False) from error
        return str(response.token)

    async def read(
        self, method: Callable[[Any], Any], request: Any, timeout_s: float, on: Connection | None = None
    ) -> Any:
        """A call that may be repeated: failing to get its answer is CoordinationUnavailable."""
        return await self._call(on or self.current(), method, request, timeout_s, changes=False)

    async def change(self, method: Callable[[Any], Any], request: Any, deadline_s: float) -> Any:
        """A call that must not be repeated: OutcomeUnknownError where its answer fails to come after it was sent.

        ``deadline_s``: on the monotonic clock.
        """
        connection = self.current()
        if not connection.trusted:
            probe = etcdrpc.RangeRequest(key=self.settings.prefix.encode(), keys_only=True, limit=1)
            await self.read(kv_range, probe, (deadline_s - time.monotonic()) / 2, on=connection)
        return await self._call(connection, method, request, deadline_s - time.monotonic(), changes=True)

    async def _call(
        self, connection: Connection, method: Callable[[Any], Any], request: Any, timeout_s: float, *, changes: bool
    ) -> Any:
        """``method``: takes the etcd3 client, gives the stub's method."""
        if timeout_s <= 0:
            raise CoordinationUnavailable(f"etcd at {connection.endpoint}: no time is left")
        metadata = await self.metadata()
        self.counters.calls += 1
        try:
            response = await answer_of(method(connection.client).future(request, timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise self._classified(connection, error, changes=changes) from error
        except ValueError as error:  # gRPC's way to say that the channel is closed
            raise CoordinationUnavailable("coordination is closed") from error
        self.answered(connection)
        return response

    def answered(self, connection: Connection) -> None:
        connection.trusted = True
        self.healthy = True
        self.counters.last_success_s = time.monotonic()

    def _classified(self, connection: Connection, error: Any, *, changes: bool) -> Exception:
        """What happened to the call, from its status code."""
        code, details = error.code(), error.details() or ""
        said = f"etcd at {connection.endpoint}: {code.name}: {details}"
        self.counters.errors += 1
        if code is grpc.StatusCode.UNAUTHENTICATED or details == OLD_AUTH_REVISION:
            self.forget_token()
            return CoordinationUnavailable(said)
        if code in UNANSWERED:
            self.healthy = False
            self.suspect(connection)
            if changes and details != NO_LEADER:
                self.counters.unknown_outcomes += 1
                return OutcomeUnknownError(said)
            return CoordinationUnavailable(said)
        self.answered(connection)
        if code is grpc.StatusCode.NOT_FOUND:
            return LeaseNotFoundError(said)
        if code is grpc.StatusCode.OUT_OF_RANGE:
            return CompactedError(said)
        return RejectedError(said)


def key_bytes(key: str) -> bytes:
    """Keys are UTF-8; what somebody else put under our prefix may not be, and must not end a watch."""
    return key.encode(errors="surrogateescape")


def key_text(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def kv_range(client: Any) -> Any:
    return client.kvstub.Range


async def answer_of(call: Any) -> Any:
    """Awaits a gRPC future without a thread of our own: gRPC's completion thread wakes the loop. Raises
    grpc.RpcError."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def resolve() -> None:
        if not done.done():
            done.set_result(None)

    def finished(_: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve)

    call.add_done_callback(finished)
    try:
        await done
    except asyncio.CancelledError:
        call.cancel()
        raise
    try:
        return call.result(timeout=0)
    except grpc.FutureCancelledError as error:
        raise _Cancelled from error


class _Cancelled(grpc.RpcError):  # type: ignore[misc]  # grpc carries no types
    """A call cut off because its channel was closed, in the shape of every other failure."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "the connection was closed"
