"""How nodes come into the cluster, and leave it: what etcd holds of them is written here.

Model: a node announces itself to any manager (``join``), or a manager is told where its region's nodes are
(``introduce``); either way the node is asked at its address who it is before it is written down, and every manager
dials what is written. ``forget`` takes away what will not come back.
Invariant: under a node's name etcd has one region for ever, and an address at which that node answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
from typing import Final

import msgspec

from distribution_manager.config import NAME_PATTERN
from distribution_manager.coordination.interface import Coordination, CoordinationUnavailable
from distribution_manager.core.metadata import (
    NodeRecord,
    ShardRecord,
    decode_record,
    encode_record,
    node_drain_key,
    node_key,
)
from distribution_manager.core.transactions import ABSENT, Compare, Put, Remove, Transaction
from distribution_manager.driver import Driver
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.addresses import parse_peer
from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.errors import ProtocolError, ShadowQError
from shadow_nodes.protocol.joining import IDENTITY_PATH, Announcement, Identity

log = logging.getLogger(__name__)

INTRODUCTION_SECONDS: Final = 0.2
"""How often a node of this region that does not answer yet is asked again."""
IDENTITY_SECONDS_MAX: Final = 2.0
QUEUES_NAMED_MAX: Final = 3


class RefusedError(ShadowQError):
    """The message says why not, and what to do."""


class Nodes:
    def __init__(self, driver: Driver, coordination: Coordination, peers: PeerHttp, cluster: str) -> None:
        self._driver = driver
        self._directory = driver.core.directory
        self._coordination = coordination
        self._peers = peers
        self._cluster = cluster

    async def join(self, announcement: Announcement) -> bool:
        """Whether this has changed what is known. Raises RefusedError, OutcomeUnknownError, RejectedError."""
        wanted, address = announcement.identity, announcement.address
        self._check(wanted, address)
        if _as_announced(self._directory.nodes.get(wanted.node), announcement):
            return False
        key = node_key(wanted.node)
        found = await self._coordination.get(key)
        known = None if found is None else decode_record(NodeRecord, key, found.value)
        if known is not None and known.region != wanted.region:
            raise RefusedError(
                f"node {wanted.node} is of region {known.region}, and a node keeps its region: "
                "give this one another name with --node and another --data"
            )
        await self._check_place(wanted, address, known)
        fresh = NodeRecord(node=wanted.node, region=wanted.region, address="", incarnation="")
        record = msgspec.structs.replace(known or fresh, address=address, incarnation=wanted.incarnation)
        compare = Compare(key, ABSENT if found is None else found.mod_revision)
        outcome = await self._coordination.transact(Transaction([compare], [Put(key, encode_record(record))]))
        if not outcome.succeeded:
            raise CoordinationUnavailable(f"node {wanted.node} is being registered by another manager too")
        log.info("node %s of region %s has joined at %s", wanted.node, wanted.region, address)
        return True

    async def forget(self, node: str) -> None:
        """Takes away the record of a node that is gone for good.

        Raises RefusedError, OutcomeUnknownError, RejectedError.
        """
        found = await self._coordination.get(node_key(node))
        if found is None:
            raise RefusedError(f"there is no node {node!r}: see shadowq status")
        if node in self._driver.core.liveness.nodes:
            raise RefusedError(f"node {node} is running: stop it first, or it would join again")
        held = await self._queues_on(node)
        if held:
            named = ", ".join(held[:QUEUES_NAMED_MAX]) + (", ..." if len(held) > QUEUES_NAMED_MAX else "")
            raise RefusedError(
                f"node {node} holds replicas of {len(held)} queues ({named}): it can be forgotten when they have moved"
            )
        compare = Compare(node_key(node), found.mod_revision)
        changes: list[Put | Remove] = [Remove(node_key(node)), Remove(node_drain_key(node))]
        outcome = await self._coordination.transact(Transaction([compare], changes))
        if not outcome.succeeded:
            raise RefusedError(f"node {node} was registered anew meanwhile: look at shadowq status, and try again")
        log.info("node %s is forgotten", node)

    async def introduce(self, address: str) -> None:
        """Finds out who the nodes at an address of this region are, for as long as this manager runs; the driver does
        the rest."""
        introductions: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                seconds = INTRODUCTION_SECONDS
                with contextlib.suppress(OSError, ProtocolError):
                    targets, seconds = await self._peers.resolver.targets(address)
                    for target in targets:
                        if target not in introductions:
                            introductions[target] = asyncio.create_task(self._introduce(target))
                await asyncio.sleep(seconds)
        finally:
            for task in introductions.values():
                task.cancel()

    async def _introduce(self, address: str) -> None:
        complaint = ""
        while True:
            try:
                identity = await self._identity_at(address)
            except RefusedError as error:
                reason = str(error)
            else:
                if identity.cluster == self._cluster:
                    self._driver.introduce(identity.node, address)
                    return
                reason = f"the node at {address} is of cluster {identity.cluster}, not {self._cluster}"
            if reason != complaint:
                complaint = reason
                log.warning("not introduced, still trying: %s", reason)
            await asyncio.sleep(INTRODUCTION_SECONDS)

    # --- what is checked -------------------------------------------------------------------------------------------

    def _check(self, wanted: Identity, address: str) -> None:
        """Raises RefusedError."""
        if wanted.cluster != self._cluster:
            raise RefusedError(f"this is cluster {self._cluster}, not {wanted.cluster}: say so with --cluster")
        for what, name in (("node", wanted.node), ("region", wanted.region)):
            if not NAME_PATTERN.fullmatch(name):
                raise RefusedError(f"{name!r} is not the name of a {what}: see shadowq node --help")
        try:
            parse_peer(address)
        except ValueError as error:
            raise RefusedError(f"advertise: {error}") from error

    async def _check_place(self, wanted: Identity, address: str, known: NodeRecord | None) -> None:
        """The node is where it says, and no other process has its name. Raises RefusedError."""
        there = await self._identity_at(address)
        if there != wanted:
            raise RefusedError(
                f"at {address} is node {there.node} of region {there.region}: give an --advertise address"
            )
        if known is None or known.address == address:
            return
        try:
            other = await self._identity_at(known.address)
        except RefusedError:
            return
        if other.node == wanted.node and other.life != wanted.life:
            raise RefusedError(f"the node at {known.address} has the name {wanted.node}: give another with --node")

    async def _queues_on(self, node: str) -> list[str]:
        """Names of queues with a replica there, from etcd itself: what this manager knows of it may be old."""
        shards = await self._coordination.list_prefix("shards/")
        names = []
        for item in shards.items:
            record = decode_record(ShardRecord, item.key, item.value)
            if any(replica.node == node for replica in record.replicas):
                queue_id = item.key.split("/")[1]
                queue = self._directory.queues.get(queue_id)
                names.append(queue_id if queue is None else queue.name)
        return sorted(set(names))

    async def _identity_at(self, address: str) -> Identity:
        """Raises RefusedError where nobody answers there who knows the secret."""
        try:
            status, body = await self._peers.ask(address, "GET", IDENTITY_PATH, IDENTITY_SECONDS_MAX)
            reason = f"it answers {status}"
            if status == http.HTTPStatus.OK:
                return decode_json(body, Identity)
        except (OSError, ProtocolError) as error:
            reason = str(error)
        raise RefusedError(
            f"this manager cannot reach the node at {address} ({reason}): "
            "is that its address (--advertise), and has it the same secret?"
        )


def _as_announced(known: NodeRecord | None, announcement: Announcement) -> bool:
    wanted = announcement.identity
    return known is not None and (known.region, known.address, known.incarnation) == (
        wanted.region,
        announcement.address,
        wanted.incarnation,
    )
