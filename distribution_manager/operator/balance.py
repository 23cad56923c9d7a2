"""``GET /admin/rebalance``: which primaries should move so that they are spread; ``GET /admin/demand``: whom we serve.

Whoever asks carries the steps out, one promotion each.
"""

from __future__ import annotations

import asyncio
import http

import msgspec
from aiohttp import web

from distribution_manager.core.attributes import wishes_of
from distribution_manager.core.balance import Candidate, plan
from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.core.placement import placements
from distribution_manager.core.promotion import FOLLOW_WEIGHT_MIN, SCORE_MARGIN_MS
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.errors import ProtocolError

REBALANCE_PATH = "/admin/rebalance"
DEMAND_PATH = "/admin/demand"
DEMAND_SECONDS_MAX = 5.0

Demands = dict[str, dict[str, float]]
"""Shard -> how much the clients of each region use it."""


class BalanceApi:
    def __init__(self, core: ManagerCore, peers: PeerHttp) -> None:
        self._core = core
        self._peers = peers

    def add_to(self, app: web.Application) -> None:
        app.router.add_get(REBALANCE_PATH, self._plan)
        app.router.add_get(DEMAND_PATH, self._demand)

    async def _demand(self, _: web.Request) -> web.Response:
        return web.json_response(self._own_demands())

    def _own_demands(self) -> Demands:
        now_ms = self._core.now.monotonic_ms
        return {shard: owner.demand.weights(now_ms) for shard, owner in self._core.owners.items()}

    async def _plan(self, _: web.Request) -> web.Response:
        demands = await self._demands()
        core = self._core
        directory = core.directory
        candidates = []
        for queue in directory.queues.values():
            known = directory.shards.get(queue.shard())
            if known is not None:
                candidate = self._candidate(queue, known[0], demands.get(queue.shard(), {}))
                if candidate is not None:
                    candidates.append(candidate)
        nodes = [site.node for site in core.atlas.sites() if not site.unfit and self._has_manager(site.region)]
        return web.json_response({"steps": msgspec.to_builtins(plan(candidates, nodes, SCORE_MARGIN_MS))})

    def _candidate(self, queue: QueueMetadata, record: ShardRecord, demand: dict[str, float]) -> Candidate | None:
        """None where the primary is not to be moved from: that is for promotion by failure, or a drain's."""
        nodes = [replica.node for replica in record.replicas]
        sites = [site for site in self._core.atlas.sites() if site.node in nodes]
        if len(sites) < len(nodes):
            return None
        ranked = placements(sites, len(nodes), self._core.atlas, demand, wishes=wishes_of(queue), keep=nodes)
        here = next((one for one in ranked if one.sites[0].node == record.primary), None)
        if here is None:
            return None
        options = [
            one
            for one in ranked
            if one is not here and self._has_manager(one.sites[0].region) and one.preferred >= here.preferred
        ]
        directory = self._core.directory
        owner = directory.managers.get(record.owner.manager if record.owner else "")
        region = here.sites[0].region
        follows = owner is None or owner.region == region or not self._has_manager(region)
        return Candidate(queue.name, here, options, follows, sum(demand.values()) >= FOLLOW_WEIGHT_MIN)

    def _has_manager(self, region: str) -> bool:
        core = self._core
        return any(
            item.region == region and (name == core.config.manager or name in core.managers)
            for name, item in core.directory.managers.items()
        )

    async def _demands(self) -> Demands:
        """Of all shards, from their owners; of managers that do not answer, none."""
        core = self._core
        found = self._own_demands()
        others = [item for name, item in core.directory.managers.items() if name in core.managers]
        for answer in await asyncio.gather(*(self._ask(item.address) for item in others)):
            found |= answer
        return found

    async def _ask(self, address: str) -> Demands:
        try:
            status, body = await self._peers.ask(address, "GET", DEMAND_PATH, DEMAND_SECONDS_MAX)
            return decode_json(body, Demands) if status == http.HTTPStatus.OK else {}
        except (OSError, ProtocolError):
            return {}
