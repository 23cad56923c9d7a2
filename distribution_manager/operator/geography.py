"""``GET /admin/latency``: how far regions are apart; ``GET /admin/explain?queue=NAME``: why a queue is where it is."""

from __future__ import annotations

import http
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from aiohttp import web

from distribution_manager.core.atlas import Measured, median_way
from distribution_manager.core.attributes import wishes_of
from distribution_manager.core.latency import effective_ms
from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.core.placement import NotEnoughRegionsError, Placement, Site, Wishes, placements, why_not
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.errors import ProtocolError

CANDIDATES_SHOWN_MAX = 10
OWNER_SECONDS_MAX = 3.0
"""How long the owner, which knows the queue's clients, is waited for."""

Row = dict[str, Any]


class GeographyApi:
    def __init__(self, core: ManagerCore, peers: PeerHttp) -> None:
        self._core = core
        self._peers = peers

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/admin/latency", self._latency)
        app.router.add_get("/admin/explain", self._explain)

    # --- latency ---------------------------------------------------------------------------------------------------

    async def _latency(self, _: web.Request) -> web.Response:
        """``pairs``: of regions; a pair that nobody has measured has ``links`` 0. ``ways``: of single processes."""
        directory, atlas = self._core.directory, self._core.atlas
        homes = {node.region for node in directory.nodes.values()}
        regions = sorted(homes | {manager.region for manager in directory.managers.values()})
        pairs = [self._pair(one, other) for one, other in combinations(regions, 2)]
        return web.json_response(
            {
                "manager": self._core.config.manager,
                "regions": regions,
                "pairs": pairs,
                "ways": [self._way(item) for item in atlas.ways()],
            }
        )

    def _pair(self, one: str, other: str) -> Row:
        found = self._core.atlas.between(one, other)
        row: Row = {"regions": [one, other], "links": len(found)}
        if found:
            way = median_way(found)
            row |= {"round_trip_ms": way.round_trip_ms, "jitter_ms": way.jitter_ms, "loss": way.loss}
            row |= {"counts_ms": round(effective_ms(way), 2), "age_s": min(self._age_s(item) for item in found)}
        return row

    def _way(self, item: Measured) -> Row:
        way = item.way
        return {
            "manager": item.manager,
            "region": item.region,
            "peer": item.peer,
            "peer_kind": item.kind,
            "peer_region": way.region,
            "round_trip_ms": way.round_trip_ms,
            "jitter_ms": way.jitter_ms,
            "loss": way.loss,
            "counts_ms": round(effective_ms(way), 2),
            "age_s": self._age_s(item),
        }

    def _age_s(self, item: Measured) -> float:
        """Since it was said; by two clocks, where another manager said it."""
        if item.measured_ms == 0:
            return 0.0
        return round(max(0, self._core.now.clock_ms - item.measured_ms) / 1000, 1)

    # --- explain ---------------------------------------------------------------------------------------------------

    async def _explain(self, request: web.Request) -> web.Response:
        name = request.query.get("queue", "")
        queue = self._core.directory.queue(name)
        if queue is None:
            return web.json_response({"error": f"there is no queue {name!r}"}, status=404)
        record, _ = self._core.directory.shards.get(queue.shard(), (ShardRecord(), 0))
        answer = None
        if queue.shard() not in self._core.owners and "asked" not in request.query:
            answer = await self._ask_owner(record, name)
        return web.json_response(answer or self._explained(queue, record))

    async def _ask_owner(self, record: ShardRecord, queue: str) -> Any:
        """The owner's answer; None where it gives none."""
        owner = self._core.directory.managers.get(record.owner.manager if record.owner else "")
        if owner is None:
            return None
        parameters = {"queue": queue, "asked": "1"}
        try:
            status, body = await self._peers.ask(
                owner.address, "GET", "/admin/explain", OWNER_SECONDS_MAX, query=parameters
            )
            return decode_json(body, Row) if status == http.HTTPStatus.OK else None
        except (OSError, ProtocolError):
            return None

    def _explained(self, queue: QueueMetadata, record: ShardRecord) -> Row:
        core, wishes = self._core, wishes_of(queue)
        owner = core.owners.get(queue.shard())
        weights = owner.demand.weights(core.now.monotonic_ms) if owner is not None else {}
        clients = weights or {core.region: 1.0}
        sites = core.atlas.sites()
        ranked, problem = self._ranked(sites, 1 + queue.shadow_factor, clients, wishes)
        current = self._current(sites, record, clients, wishes)
        rows = [
            _row(placement, rank, current=current is not None and _same(placement, current))
            for rank, placement in enumerate(ranked, start=1)
        ]
        shown = [row for row in rows if row["rank"] <= CANDIDATES_SHOWN_MAX or row["current"]]
        if current is not None and not any(row["current"] for row in rows):
            shown.append(_row(current, None, current=True))
        return {
            "queue": queue.name,
            "answered_by": core.config.manager,
            "clients": {region: round(weight / sum(clients.values()), 4) for region, weight in clients.items()},
            "clients_from": "traffic" if weights else "the manager that answers: no traffic is known of",
            "allowed_regions": sorted(wishes.allowed_regions),
            "preferred_primary_region": wishes.primary_region,
            "shadow_factor": queue.shadow_factor,
            "problem": problem,
            "candidates": shown,
            "candidates_in_all": len(ranked),
            "not_candidates": [
                {"node": site.node, "region": site.region, "why": why} for site, why in why_not(sites, wishes=wishes)
            ],
        }

    def _ranked(
        self, sites: list[Site], count: int, clients: Mapping[str, float], wishes: Wishes
    ) -> tuple[list[Placement], str]:
        """All sets that may be, the best first; where there is none, why."""
        try:
            return placements(sites, count, self._core.atlas, clients, wishes=wishes), ""
        except NotEnoughRegionsError as error:
            return [], str(error)

    def _current(
        self, sites: list[Site], record: ShardRecord, clients: Mapping[str, float], wishes: Wishes
    ) -> Placement | None:
        """The set as it is, with its score; None where a node of it is not known."""
        nodes = {replica.node for replica in record.replicas}
        held = [site for site in sites if site.node in nodes]
        if len(held) < len(nodes) or not held:
            return None
        ranked, _ = self._ranked(held, len(held), clients, Wishes(primary_region=wishes.primary_region))
        return next((item for item in ranked if item.sites[0].node == record.primary), None)


def _same(one: Placement, other: Placement) -> bool:
    nodes = [frozenset(site.node for site in placement.sites) for placement in (one, other)]
    return nodes[0] == nodes[1] and one.sites[0].node == other.sites[0].node


def _row(placement: Placement, rank: int | None, *, current: bool) -> Row:
    primary, *shadows = placement.sites
    return {
        "rank": rank,
        "current": current,
        "primary": primary.node,
        "shadows": [site.node for site in shadows],
        "regions": list(placement.regions),
        "clients_ms": round(placement.clients_ms, 2),
        "quorum_ms": round(placement.quorum_ms, 2),
        "acknowledged_ms": round(placement.acknowledged_ms, 2),
        "failover_ms": round(placement.failover_ms, 2),
        "load_ms": round(placement.load_ms, 2),
        "score_ms": round(placement.score_ms, 2),
        "preferred": placement.preferred,
        "unfit": {site.node: site.unfit for site in placement.sites if site.unfit},
    }
