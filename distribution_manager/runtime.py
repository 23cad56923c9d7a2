"""Joins the parts of a manager: coordination, links, the core, the SQS endpoint, the admin API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from distribution_manager.access import Access
from distribution_manager.backend import CoreBackend
from distribution_manager.config import ConfigError, ManagerConfig
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.core.manager import CoreConfig
from distribution_manager.core.metadata import ManagerRecord, encode_record, manager_key
from distribution_manager.core.promotion import PromotionConfig
from distribution_manager.core.thresholds import Pace, Thresholds
from distribution_manager.core.transactions import Put, Transaction
from distribution_manager.driver import Driver
from distribution_manager.links.settings import LinkSettings, client_tls, server_tls
from distribution_manager.moves import MoveRunner
from distribution_manager.nodes import Nodes
from distribution_manager.operator.admin import AdminApi
from distribution_manager.operator.metrics import Metrics
from distribution_manager.operator.nodes import NodesApi
from distribution_manager.sqs.config import SqsConfig
from distribution_manager.sqs.handler import make_endpoint, make_server
from distribution_manager.sqs.http.server import ConnectionBounds
from distribution_manager.tls import Certificates
from distribution_manager.undertaker import Undertaker
from shadow_nodes.collector import Collector
from shadow_nodes.listening import BACKLOG, BoundedRunner
from shadow_nodes.logs import log_to_stderr
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.addresses import Address
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError
from shadow_nodes.protocol.handles import SESSION_BITS
from shadow_nodes.resolve import Resolver

log = logging.getLogger(__name__)

REGISTRATION_SECONDS = 0.2
"""How often a registration that etcd did not take is tried again."""
REGISTRATION_LOOK_SECONDS = 2.0
"""How often this manager looks whether it is still in the registry."""
SHUTDOWN_SECONDS_MAX = 1.0
RELEASE_POLL_SECONDS = 0.01
RELEASE_POLLS_MAX = 100


@dataclass
class Manager:
    """A running manager. ``start`` raises OSError where an address cannot be had, and ConfigError."""

    config: ManagerConfig
    life: int = field(default_factory=lambda: int.from_bytes(os.urandom(8)) >> (64 - SESSION_BITS))

    async def start(self) -> None:
        config = self.config
        secret = (config.secret() or b"").decode()
        self.certificates = Certificates()
        self.links = self._link_settings(secret)
        self.coordination = EtcdCoordination(_etcd_settings(config))
        self.driver = Driver(
            CoreConfig(config.name, self.life, config.region, _promotion(config), config.heal_after_s * 1000),
            config.cluster,
            self.coordination,
            self.links,
            Resolver(tuple(map(str, config.dns_server))),
        )
        self.peers = PeerHttp(self.driver.resolver, secret, self.links.client_tls)
        self.nodes = Nodes(self.driver, self.coordination, self.peers, config.cluster)
        self.backend = CoreBackend(self.driver, self.coordination)
        self.metrics = Metrics(self.driver.core)
        self.metrics.show_stale_names(lambda: self.driver.resolver.stale + self.coordination.stale_names)
        self.admin = AdminApi(
            self.driver,
            self.metrics,
            secret,
            self._etcd_state,
            self.peers,
            backend=self.backend,
            near_nodes=len(config.nodes),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self.sqs = SqsConfig(
            region=config.arn_region,
            account=config.account_id,
            public_url=config.public_url,
            name_reuse_seconds=config.name_reuse_s,
            body_bytes_max=config.request_bytes_max,
            body_seconds_max=config.body_timeout_s,
        )
        self.access = Access(config, self.sqs, self.driver.core.directory)
        await self._listen_for_links()
        await self._listen_for_clients()
        await self.coordination.start()
        self.coordination.on_session(lambda lease: self._start_task(self._register(lease)))
        self.driver.start()
        self._start_task(self._stay_registered())
        self._start_task(self.certificates.watch())
        self._start_task(MoveRunner(self.driver, self.backend).run())
        self._start_task(Undertaker(self.driver, self.backend).run())
        if self.access.keys_file is not None:
            self._start_task(self.access.keys_file.watch())
        for address in config.nodes:
            self._start_task(self.nodes.introduce(str(address)))

    def reload(self) -> None:
        """Reads certificates and access keys again, where they come from files."""
        self.certificates.reload()
        if self.access.keys_file is not None:
            self.access.keys_file.reload()

    async def stop(self) -> None:
        """Gives its shards away, ends what clients ask, and leaves the registry."""
        self.admin.stopping = True
        await self._release_shards()
        self.driver.listener.close()
        self._client_listener.close()
        await asyncio.gather(self.clients.shutdown(SHUTDOWN_SECONDS_MAX), self._link_listener.stop())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.driver.close()
        await self.coordination.close()

    async def _release_shards(self) -> None:
        """Other managers take over while this one still serves, so that no operation waits for a takeover."""
        self.driver.enter()
        self.driver.core.handoffs.release()
        for _ in range(RELEASE_POLLS_MAX):
            if not self.driver.core.owners or not self.driver.core.managers:
                return
            await asyncio.sleep(RELEASE_POLL_SECONDS)

    async def _listen_for_links(self) -> None:
        app = web.Application()
        app.router.add_get("/link", self.driver.listener.handle)
        self.admin.add_to(app)
        NodesApi(self.nodes).add_to(app)
        cert, key, ca = self.config.link_tls_cert, self.config.link_tls_key, self.config.link_tls_ca
        tls = None
        if cert is not None and key is not None and ca is not None:
            tls = self._tls("link-tls-cert", lambda: server_tls(str(cert), str(key), str(ca)), cert, key, ca)
        self._link_listener = BoundedRunner(app)
        with _named(self.config.link_listen):
            await self._link_listener.start(self.config.link_listen.host, self.config.link_listen.port, tls)

    async def _listen_for_clients(self) -> None:
        config = self.config
        endpoint = make_endpoint(self.backend, self.sqs, self.access.gate, observe=self.metrics.observe_request)
        bounds = ConnectionBounds(config.connections_max, config.head_timeout_s, config.idle_timeout_s)
        cert, key = config.tls_cert, config.tls_key
        tls = None
        if cert is not None and key is not None:
            tls = self._tls("tls-cert", lambda: server_tls(str(cert), str(key)), cert, key)
        self.clients = make_server(endpoint, bounds)
        with _named(config.listen):
            self._client_listener = await asyncio.get_running_loop().create_server(
                self.clients,
                config.listen.host,
                config.listen.port,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=None if tls is None else bounds.first_head_seconds,
            )

    def _link_settings(self, secret: str) -> LinkSettings:
        """Raises ConfigError."""
        cert, key, ca = self.config.link_tls_cert, self.config.link_tls_key, self.config.link_tls_ca
        if cert is None or key is None or ca is None:
            return LinkSettings(secret=secret)
        tls = self._tls("link-tls-cert", lambda: client_tls(str(ca), str(cert), str(key)), cert, key, ca)
        return LinkSettings(secret=secret, client_tls=tls)

    def _tls(self, setting: str, make: Callable[[], ssl.SSLContext], *files: Path) -> ssl.SSLContext:
        """A context that follows its files. Raises ConfigError."""
        try:
            return self.certificates.add(make, *files)
        except OSError as error:
            raise ConfigError(f"{setting}: {' '.join(map(str, files))} cannot be used: {error}") from error

    # --- registry --------------------------------------------------------------------------------------------------

    async def _register(self, lease: int) -> None:
        """Puts this manager's record under its lease, which is new."""
        config = self.config
        record = ManagerRecord(
            manager=config.name,
            life=self.life,
            region=config.region,
            address=str(config.link_address),
            endpoint=config.endpoint,
            pid=os.getpid(),
        )
        put = Transaction([], [Put(manager_key(config.name), encode_record(record), leased=True)])
        while self.coordination.session == lease:
            try:
                await self.coordination.transact(put)
            except (OutcomeUnknownError, RejectedError) as error:
                log.warning("not registered yet: %s", error)
                await asyncio.sleep(REGISTRATION_SECONDS)
            else:
                return

    async def _stay_registered(self) -> None:
        """Until cancelled: registers again where the registry does not name this process."""
        while True:
            await asyncio.sleep(REGISTRATION_LOOK_SECONDS)
            lease = self.coordination.session
            core = self.driver.core
            if lease is not None and core.directory.synchronized and not core.registered:
                log.warning("the registry does not name this manager: registering again")
                await self._register(lease)

    def _etcd_state(self) -> dict[str, Any]:
        healthy = self.coordination.healthy
        return {
            "endpoint": ",".join(str(endpoint) for endpoint in self.config.etcd),
            "healthy": healthy,
            "state": "up" if healthy else "unreachable",
        }

    def _start_task(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the manager failed: restart it to have that done again", exc_info=task.exception())


@contextlib.contextmanager
def _named(address: Address) -> Iterator[None]:
    """An OSError says where we cannot listen."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from error


def _etcd_settings(config: ManagerConfig) -> EtcdSettings:
    return EtcdSettings(
        cluster=config.cluster,
        endpoints=tuple(map(str, config.etcd)),
        nameservers=tuple(map(str, config.dns_server)),
        ca=config.etcd_ca,
        cert=config.etcd_cert,
        key=config.etcd_key,
        server_name=config.etcd_server_name or "",
        user=config.etcd_user or "",
        password=config.etcd_password() or "",
        session_ttl_s=config.lease_ttl_s,
    )


def _promotion(config: ManagerConfig) -> PromotionConfig:
    return PromotionConfig(
        defaults=Thresholds(
            config.promotion_message_rate,
            config.promotion_ack_latency_ms,
            config.promotion_cpu_percent / 100,
            config.promotion_disk_free_percent / 100,
        ),
        pace=Pace(config.promotion_window_s * 1000, config.promotion_after_s * 1000, config.promotion_horizon_s * 1000),
        cooldown_ms=config.promotion_cooldown_s * 1000,
        failback_after_ms=config.failback_after_s * 1000,
        permits=config.promotions_max,
    )


async def run_manager(config: ManagerConfig) -> bool:
    """Runs a manager until SIGTERM or SIGINT; False: until it failed. Raises OSError where an address cannot be had."""
    log_to_stderr(config.log_level, manager=config.name, region=config.region)
    manager = Manager(config)
    await manager.start()
    Collector().start()
    stopping, failed = asyncio.Event(), asyncio.Event()

    def fail() -> None:
        failed.set()
        stopping.set()

    manager.driver.on_fatal = fail
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, manager.reload)
    log.info("serving clients on %s, managers on %s", config.listen, config.link_listen)
    await stopping.wait()
    log.info("stopping")
    await manager.stop()
    return not failed.is_set()
