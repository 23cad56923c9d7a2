"""The admin API, on the link listener: health, metrics, and what ``shadowq status`` shows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.operator.balance import BalanceApi
from distribution_manager.operator.drain import DrainApi
from distribution_manager.operator.geography import GeographyApi
from distribution_manager.operator.log_api import LogApi
from distribution_manager.operator.metrics import Metrics
from distribution_manager.operator.promotion import PromotionApi
from distribution_manager.operator.replay import ReplayApi
from distribution_manager.sqs.backend import Backend
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.bearer import knows_secret
from shadow_nodes.protocol.messages import Inspected, Inspection

NEAR_NODES_SECONDS = 5.0
"""A manager that starts waits no longer than this for the nodes of its own region before it says that it is ready."""
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/link"})
"""Everything else asks for the secret, where there is one (the link does so itself)."""


class Inspector(Protocol):
    core: ManagerCore

    def enter(self) -> None: ...

    async def inspect(self, shards: list[str] | None, *, digest: bool = False) -> dict[str, Inspected]: ...


class AdminApi:
    """``etcd``: a function that says how etcd is. ``stopping``: turns readiness off."""

    def __init__(
        self,
        inspector: Inspector,
        metrics: Metrics,
        secret: str,
        etcd: Callable[[], dict[str, Any]],
        peers: PeerHttp,
        *,
        backend: Backend,
        near_nodes: int = 0,
    ) -> None:
        """``near_nodes``: how many nodes of its own region the manager was told of."""
        self._near_nodes = near_nodes
        self._near_until_s = time.monotonic() + NEAR_NODES_SECONDS
        self._peers = peers
        self._backend = backend
        self.stopping = False
        self._inspector = inspector
        self._core = inspector.core
        self._metrics = metrics
        self._secret = secret
        self._etcd = etcd

    def add_to(self, app: web.Application) -> None:
        app.middlewares.append(self._authorize)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/admin/status", self._status)
        GeographyApi(self._core, self._peers).add_to(app)
        app.router.add_post("/admin/promote", PromotionApi(self._inspector, self._peers).handle)
        DrainApi(self._inspector).add_to(app)
        BalanceApi(self._core, self._peers).add_to(app)
        app.router.add_get("/admin/log", LogApi(self._core, self._peers).handle)
        app.router.add_post("/admin/replay", ReplayApi(self._core, self._backend, self._peers).handle)

    @web.middleware
    async def _authorize(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path not in OPEN_PATHS and not knows_secret(request.headers.get("Authorization", ""), self._secret):
            raise web.HTTPUnauthorized(text="this manager has a secret, and the request lacks it\n")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        config = self._core.config
        return web.json_response(
            {"status": "ok", "manager": config.manager, "region": config.region, "etcd": self._etcd()}
        )

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready: it knows the cluster, and a majority of the nodes it knows of is linked; in its first seconds, those
        of its own region too: a queue that was created before could not have its primary there.
        """
        nodes, links = self._core.directory.nodes, self._core.liveness.nodes
        near = sum(1 for node, record in nodes.items() if record.region == self._core.region and node in links)
        lacks_near = near < self._near_nodes and time.monotonic() < self._near_until_s
        seen = self._core.directory.synchronized
        if self.stopping or not seen or lacks_near or len(links) * 2 <= len(nodes) or not nodes:
            raise web.HTTPServiceUnavailable(
                text=f"not ready: etcd {'seen' if seen else 'not seen yet'}, "
                f"{len(links)} of {len(nodes)} nodes linked, {near} of this region's {max(near, self._near_nodes)}\n"
            )
        return web.Response(text="ready\n")

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), content_type="text/plain", charset="utf-8")

    async def _status(self, request: web.Request) -> web.Response:
        """``?digest=1`` adds the digest of each replica's state; ``?queue=NAME`` limits it to one queue."""
        directory = self._core.directory
        name = request.query.get("queue")
        wanted = [directory.queue(item) for item in ([name] if name else sorted(directory.ids))]
        queues = [queue for queue in wanted if queue is not None]
        shards = [queue.shard(number) for queue in queues for number in range(queue.shards)] if name else None
        answers = await self._inspector.inspect(shards, digest=request.query.get("digest") == "1")
        replicas: dict[str, dict[str, Inspection]] = {}
        for node, answer in answers.items():
            for item in answer.shards:
                replicas.setdefault(item.shard, {})[node] = item
        return web.json_response(
            {
                "managers": self._managers(),
                "nodes": self._nodes(),
                "etcd": self._etcd(),
                "queues": [self._queue(queue, replicas) for queue in queues],
            }
        )

    def _managers(self) -> list[dict[str, Any]]:
        core = self._core
        return [
            {
                "name": name,
                "region": record.region,
                "endpoint": record.endpoint,
                "pid": record.pid,
                "state": "up" if name == core.config.manager or name in core.managers else "unreachable",
                "draining": core.directory.region_draining(record.region),
            }
            for name, record in sorted(core.directory.managers.items())
        ]

    def _nodes(self) -> list[dict[str, Any]]:
        core = self._core
        rows = []
        for name, record in sorted(core.directory.nodes.items()):
            link = core.liveness.nodes.get(name)
            row: dict[str, Any] = {"name": name, "region": record.region, "address": record.address, "pid": record.pid}
            row["state"] = "up" if link is not None else "unreachable"
            row["draining"] = core.directory.is_draining(name)
            if link is not None:
                row["round_trip_ms"] = round(link.round_trip.smoothed_ms, 3)
                row["disk_free"] = round(link.load.disk_free, 4)
                row["cpu"] = round(link.load.cpu, 3)
            rows.append(row)
        return rows

    def _queue(self, queue: QueueMetadata, replicas: dict[str, dict[str, Inspection]]) -> dict[str, Any]:
        count = 1 + queue.shadow_factor
        shards = [self._shard(queue.shard(number), count, replicas) for number in range(queue.shards)]
        first = shards[0]
        return {
            "name": queue.name,
            "id": queue.queue_id,
            "primary": first["primary"],
            "shadows": first["shadows"],
            "owner": first["owner"],
            "epoch": first["epoch"],
            "shadow_factor": queue.shadow_factor,
            "replicas": first["replicas"],
            "shards": shards,
        }

    def _shard(self, shard: str, count: int, replicas: dict[str, dict[str, Inspection]]) -> dict[str, Any]:
        """``count``: how many replicas there should be."""
        record, _ = self._core.directory.shards.get(shard, (ShardRecord(), 0))
        seen = replicas.get(shard, {})
        newest = max((item.committed_seq for item in seen.values()), default=0)
        return {
            "shard": shard,
            "primary": record.primary,
            "shadows": record.shadows,
            "owner": None if record.owner is None else record.owner.manager,
            "epoch": record.epoch,
            "version": record.version,
            "learner": record.learner,
            "outside": list(record.outside),
            "missing": max(0, count - sum(item.node in self._core.liveness.nodes for item in record.replicas)),
            "replicas": [_replica(item.node, seen.get(item.node), newest) for item in record.replicas],
        }


def _replica(node: str, item: Inspection | None, newest: int) -> dict[str, Any]:
    if item is None:
        return {"node": node, "state": "unreachable", "applied_seq": None, "commit_seq": None, "lag": None}
    row: dict[str, Any] = {
        "node": node,
        "state": "quarantined" if item.quarantined else "up",
        "applied_seq": item.applied_seq,
        "commit_seq": item.committed_seq,
        "lag": newest - item.applied_seq,
        "messages": item.messages,
        "epoch": item.promised.epoch,
    }
    if item.digest:
        row["digest"] = item.digest
    return row
