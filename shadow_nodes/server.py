"""A node's server: the links of managers, what other nodes copy, and what operators look at, on one port.

Model: aiohttp takes connections, the Driver runs the core. Invariant: with a secret set, nobody without it gets past
``OPEN_PATHS``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from shadow_nodes.config import NodeSettings
from shadow_nodes.core.node import NodeConfig, NodeCore, Pull
from shadow_nodes.core.store import Store
from shadow_nodes.driver import Driver
from shadow_nodes.joining import Joining
from shadow_nodes.listening import BoundedRunner
from shadow_nodes.load import LOAD_INTERVAL_SECONDS, LoadMeter
from shadow_nodes.metrics import NodeMetrics
from shadow_nodes.pace import Pace
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.addresses import Address
from shadow_nodes.protocol.bearer import bearer_headers, knows_secret
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.frames import FrameWriter
from shadow_nodes.protocol.handles import SESSION_BITS
from shadow_nodes.protocol.joining import IDENTITY_PATH, Announcement, Identity
from shadow_nodes.protocol.limits import FRAME_BYTES_MAX, SILENCE_BOUND_MS
from shadow_nodes.protocol.messages import Hello, ToManager, ToNode, decode_to_node, encode_frame
from shadow_nodes.replica_routes import ReplicaRoutes
from shadow_nodes.replication import Replication
from shadow_nodes.resolve import Resolver

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
HELLO_SECONDS_MAX = 5.0
PROBE_SECONDS = 5.0
"""A link on which nothing came for this long is probed, and closed after half as long again."""
CLOSE_SECONDS_MAX = 1.0
CLOSE_REASON_BYTES_MAX = 120
"""A WebSocket close frame has room for 123 bytes of text."""

assert PROBE_SECONDS * 1000 > SILENCE_BOUND_MS, "a frozen manager is to be seen silent, not closed"

log = logging.getLogger(__name__)


class NodeServer:
    """``replaced``: why the store had to be made anew, "" where it had not. ``on_fatal`` is to end the process."""

    def __init__(
        self, settings: NodeSettings, store: Store, on_fatal: Callable[[BaseException], None], replaced: str = ""
    ) -> None:
        """Recovers the replicas. Raises CorruptError, OSError, ProtocolError, ConfigError."""
        self.settings = settings
        self.metrics = NodeMetrics()
        self._store = store
        self._replaced = replaced
        self._secret = settings.read_secret()
        self._on_fatal = on_fatal
        self.core = NodeCore(
            NodeConfig(settings.node, settings.region, settings.cluster, settings.log_retained_bytes), store
        )
        self._driver: Driver | None = None
        self._listener: BoundedRunner | None = None
        self._replication: Replication | None = None
        self._link_ids = itertools.count(1)
        self._meter = LoadMeter(settings.data)
        self._metering: asyncio.TimerHandle | None = None
        self._ready = False
        self._life = secrets.randbits(SESSION_BITS)
        self._resolver: Resolver | None = None
        self._announcing: asyncio.Task[None] | None = None
        self.joining: Joining | None = None
        self.port = 0

    @property
    def driver(self) -> Driver:
        assert self._driver is not None, "not started"
        return self._driver

    async def start(self) -> None:
        """Listens. Raises OSError where the address cannot be had."""
        authorization = bearer_headers(self._secret)
        tls = self.settings.client_tls()
        self._resolver = Resolver(tuple(map(str, self.settings.dns_server)))
        self._driver = Driver(self.core, self._store, self.metrics, self._pull, self._on_fatal)
        self._replication = Replication(
            self._driver,
            self._store,
            self.metrics,
            headers=authorization,
            tls=tls,
            resolver=self._resolver,
            pace=Pace(self.settings.copy_bytes_per_second),
        )
        self._set_gauges()
        self._measure()
        app = web.Application(middlewares=[self._authorize])
        app.router.add_get("/link", self._link)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/inspect", self._inspect)
        app.router.add_get(IDENTITY_PATH, self._identity_page)
        ReplicaRoutes(self._driver, self._store).add_to(app)
        self._listener = BoundedRunner(app)
        host, port = self.settings.listen
        self.port = await self._listener.start(host, port, self.settings.server_tls())
        self._ready = True
        if self.settings.join:
            address = self.settings.advertise or Address(self.settings.listen.host, self.port)
            announcement = Announcement(identity=self._identity(), address=str(address))
            managers = tuple(map(str, self.settings.join))
            self.joining = Joining(announcement, managers, PeerHttp(self._resolver, self._secret, tls))
            self._announcing = asyncio.create_task(self.joining.run(), name="joining")

    async def stop(self) -> None:
        """Ends links and copying, waits for a write under way, closes the store."""
        self._ready = False
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.gather(self._announcing, return_exceptions=True)
        if self._metering is not None:
            self._metering.cancel()
        if self._replication is not None:
            await self._replication.close()
        if self._resolver is not None:
            await self._resolver.close()
        if self._driver is not None:
            await self._driver.stop()
        if self._listener is not None:
            await self._listener.stop()
        await asyncio.to_thread(self._store.close)

    # --- links -----------------------------------------------------------------------------------------------------

    async def _link(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=FRAME_BYTES_MAX, compress=False, heartbeat=PROBE_SECONDS, timeout=CLOSE_SECONDS_MAX
        )
        await socket.prepare(request)
        link = next(self._link_ids)
        try:
            await self._serve(link, socket)
        except (ProtocolError, TimeoutError) as error:
            text = str(error) or "no Hello came"
            log.warning("closing the link from %s: %s", request.remote, text, extra={"link": link})
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=text.encode()[:CLOSE_REASON_BYTES_MAX])
        return socket

    async def _serve(self, link: int, socket: web.WebSocketResponse) -> None:
        """Raises ProtocolError, TimeoutError."""
        driver = self.driver
        async with asyncio.timeout(HELLO_SECONDS_MAX):
            first = await socket.receive()
        if first.type is not WSMsgType.BINARY:
            return
        messages: list[ToNode] = decode_to_node(first.data)
        hello = messages[0] if messages else None
        if not isinstance(hello, Hello):
            raise ProtocolError(f"began with {type(hello).__name__}, not with Hello")
        # the writer itself: FrameWriter must know the transport and must not wait
        assert socket._writer is not None
        writer: FrameWriter[ToManager] = FrameWriter(socket._writer, encode_frame, asyncio.get_running_loop().call_soon)
        extra = {"link": link, "manager": hello.manager}
        driver.connected(link, hello, writer)
        log.info("manager %s is connected", hello.manager, extra=extra)
        try:
            if len(messages) > 1:
                driver.step(link, messages[1:])
            while (frame := await socket.receive()).type is WSMsgType.BINARY:
                driver.step(link, decode_to_node(frame.data))
        finally:
            driver.disconnected(link)
            log.info("manager %s is gone: %s", hello.manager, writer.broken or socket.close_code, extra=extra)

    # --- for operators ---------------------------------------------------------------------------------------------

    @web.middleware
    async def _authorize(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not knows_secret(request.headers.get("Authorization", ""), self._secret):
            raise web.HTTPUnauthorized(text="this node has a secret, and the request lacks it\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "status": "ok",
                "node": self.settings.node,
                "region": self.settings.region,
                "cluster": self.settings.cluster,
                "incarnation": self._store.incarnation,
                "store_replaced": self._replaced or None,
                "joined": None if self.joining is None else self.joining.accepted,
                "shards": len(self.core.replicas),
                "quarantined": [shard for shard, replica in self.core.replicas.items() if replica.quarantined],
                "links": self.driver.links,
                "write_ms_smoothed": round(self.driver.pace.smoothed_seconds * 1000, 3),
                "writes_inline": self.driver.pace.inline,
            }
        )

    def _identity(self) -> Identity:
        settings = self.settings
        return Identity(
            node=settings.node,
            region=settings.region,
            cluster=settings.cluster,
            incarnation=self._store.incarnation,
            life=self._life,
        )

    async def _identity_page(self, _: web.Request) -> web.Response:
        """Asks for the secret, so that who gets an answer knows that it has the node's."""
        return web.Response(body=msgspec.json.encode(self._identity()), content_type="application/json")

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self._ready:
            raise web.HTTPServiceUnavailable(text="stopping\n")
        return web.Response(text="ready\n")

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), content_type="text/plain", charset="utf-8")

    async def _inspect(self, request: web.Request) -> web.Response:
        digest = request.query.get("digest") == "1"
        shards = [replica.inspect(digest) for replica in self.core.replicas.values()]
        body = msgspec.json.encode(
            {"incarnation": self._store.incarnation, "shards": [_named(item) for item in shards]}
        )
        return web.Response(body=body, content_type="application/json")

    def _set_gauges(self) -> None:
        core, driver = self.core, self.driver
        self.metrics.gauges = {
            "links": ("Managers connected", lambda: driver.links),
            "shards": ("Replicas held", lambda: len(core.replicas)),
            "applied": (
                "Entries applied: the sum of all shards' applied seqs",
                lambda: sum(replica.committed.seq for replica in core.replicas.values()),
            ),
            "quarantined": (
                "Replicas whose state machine failed",
                lambda: sum(bool(replica.quarantined) for replica in core.replicas.values()),
            ),
            "store_bytes": ("Bytes of the store on disk", self._store.size_bytes),
            "store_replaced": ("1: the store was damaged and made anew at the start", lambda: bool(self._replaced)),
            "writes_inline": ("1: writes run on the loop; 0: in a thread", lambda: driver.pace.inline),
            "dns_stale": ("DNS answers used beyond their time", lambda: self._resolver.stale if self._resolver else 0),
            "cpu": ("Share of one core used", lambda: core.load.cpu),
            "memory_bytes": ("Resident memory", lambda: core.load.memory_bytes),
            "disk_free": ("Free share of the disk under the data", lambda: core.load.disk_free),
            "disk_has_room": ("0: the disk is nearly full, sends are refused", lambda: core.load.has_room),
            "disk_full": ("1: a write found no room, and waits for it", lambda: core.out_of_room),
        }

    def _measure(self) -> None:
        self._metering = asyncio.get_running_loop().call_later(LOAD_INTERVAL_SECONDS, self._measure)
        self.driver.guard(self._measure_now)

    def _measure_now(self) -> None:
        had_room = self.core.load.has_room
        load = self._meter.measure(len(self.core.replicas), self._store.spare_bytes())
        if load.has_room:
            self._store.make_reserve()
        if load.has_room != had_room:
            said = "the disk has room again" if load.has_room else "the disk is nearly full: queues may not grow"
            log.warning("%s; %d bytes are free", said, load.disk_free_bytes)
        self.core.measured(load)
        self.driver.wake()

    def _pull(self, pull: Pull) -> None:
        assert self._replication is not None
        self._replication.start(pull)


def _named(value: msgspec.Struct) -> dict[str, object]:
    """A struct as an object with names, for people: on the wire it is an array."""
    return {
        name: _named(item) if isinstance(item := getattr(value, name), msgspec.Struct) else item
        for name in value.__struct_fields__
    }
