"""``POST /admin/promote?queue=NAME&to=REGION[&cause=balance]``: moves a queue's primary and owner."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from aiohttp import web

from distribution_manager.core import causes
from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import ShardRecord
from distribution_manager.core.owner import Phase, ShardOwner
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import ProtocolError

POLL_SECONDS = 0.02
OWNER_POLLS_MAX = 250
"""How often an owner that does not serve yet is looked at again."""
WAIT_SECONDS_MAX = 15.0
"""Longer than the owner pursues a promotion, so that the answer says what became of it."""


class Promoter(Protocol):
    core: ManagerCore

    def enter(self) -> None: ...


class PromotionApi:
    def __init__(self, promoter: Promoter, peers: PeerHttp) -> None:
        self._promoter = promoter
        self._core = promoter.core
        self._peers = peers

    async def handle(self, request: web.Request) -> web.Response:
        name, region = request.query.get("queue", ""), request.query.get("to", "")
        queue = self._core.directory.queue(name)
        if queue is None:
            return _refusal(404, f"there is no queue {name!r}")
        began = asyncio.get_running_loop().time()
        for number in range(queue.shards):
            reason = await self._promote(queue.shard(number), region, request)
            if reason:
                return _refusal(409, reason)
        record, _ = self._core.directory.shards[queue.shard()]
        took_ms = round((asyncio.get_running_loop().time() - began) * 1000)
        owner = record.owner.manager if record.owner else None
        return web.json_response(
            {"queue": name, "primary": record.primary, "owner": owner, "epoch": record.epoch, "took_ms": took_ms}
        )

    async def _promote(self, shard: ShardKey, region: str, request: web.Request) -> str:
        """Returns why it cannot be done, or "" when it is done."""
        record, _ = self._core.directory.shards.get(shard, (ShardRecord(), 0))
        regions = {replica.node: self._region(replica.node) for replica in record.replicas}
        node = next((name for name, home in regions.items() if home == region), None)
        if node is None:
            return f"no replica is in {region!r}; there are some in {', '.join(sorted(regions.values()))}"
        for _ in range(OWNER_POLLS_MAX):
            owner = self._core.owners.get(shard)
            if owner is None and record.owner is not None and record.owner.manager == self._core.config.manager:
                owner = self._take(shard)
            if owner is None:
                reason = await self._ask_owner(record, request)
                break
            self._promoter.enter()
            cause = causes.BALANCE if request.query.get("cause") == causes.BALANCE else causes.BY_HAND
            reason = self._core.handoffs.promote(shard, node, cause)
            if owner.phase is Phase.SERVING:
                break
            await asyncio.sleep(POLL_SECONDS)
            record, _ = self._core.directory.shards.get(shard, (record, 0))
        return reason or await self._arrival(shard, node, region)

    def _take(self, shard: ShardKey) -> ShardOwner | None:
        """A queue that nobody has used since this manager was made its owner is taken, so as to be moved."""
        self._promoter.enter()
        self._core.take(shard)
        return self._core.owners.get(shard)

    def _region(self, node: str) -> str:
        record = self._core.directory.nodes.get(node)
        return "" if record is None else record.region

    async def _ask_owner(self, record: ShardRecord, request: web.Request) -> str:
        owner = self._core.directory.managers.get(record.owner.manager if record.owner else "")
        if owner is None or "asked" in request.query or owner.manager == self._core.config.manager:
            return "the queue has no owner just now: use it once, then try again"
        parameters = {**request.query, "asked": "1"}
        try:
            _, body = await self._peers.ask(owner.address, "POST", "/admin/promote", WAIT_SECONDS_MAX, query=parameters)
            return str(decode_json(body, dict[str, Any]).get("error", ""))
        except (OSError, ProtocolError) as error:
            return f"the owner, {owner.manager}, does not answer: {error}"

    async def _arrival(self, shard: ShardKey, node: str, region: str) -> str:
        """Waits until the primary is there, and the owner too where that region has a manager."""
        directory = self._core.directory
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while True:
                    record, _ = directory.shards.get(shard, (ShardRecord(), 0))
                    at_home = {name for name, item in directory.managers.items() if item.region == region}
                    followed = not at_home or (record.owner is not None and record.owner.manager in at_home)
                    if record.primary == node and followed:
                        return ""
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return (
                f"{node} did not become primary in time: it lags, changes meanwhile, or etcd does not answer; "
                "the queue goes on as it was"
            )


def _refusal(status: int, error: str) -> web.Response:
    return web.json_response({"error": error}, status=status)
