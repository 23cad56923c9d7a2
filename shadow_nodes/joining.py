"""Announces this node to the managers of a running cluster, of which any will do.

Model: the node's managers are tried one after the other until one has written it into etcd; then again at long
intervals, so that a registry that was lost or set back knows it again.
Invariant: a refusal never ends the node. It may hold replicas that the cluster needs, and what was refused (a secret, a
name that another node still has) is put right elsewhere; each new reason is logged once.
"""

from __future__ import annotations

import asyncio
import http
import logging
import random
from collections.abc import Sequence

import msgspec

from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.answers import decode_json
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.joining import JOIN_PATH, Announcement
from shadow_nodes.resolve import Endpoint

RETRY_SECONDS_START = 0.1
RETRY_SECONDS_MAX = 2.0
AGAIN_SECONDS = 30.0
"""After it was accepted."""
ANSWER_SECONDS_MAX = 10.0
"""A manager looks for us at our address, and at our old one, and writes into etcd before it answers."""

log = logging.getLogger(__name__)


class _Refusal(msgspec.Struct):
    error: str = ""


class _RefusedError(Exception):
    """A manager that answers says no; the others would too."""


class Joining:
    def __init__(self, announcement: Announcement, managers: Sequence[str], peers: PeerHttp) -> None:
        self.accepted = False
        self._announcement = announcement
        self._managers = managers
        self._peers = peers
        self._complaint = ""

    async def run(self) -> None:
        pause = RETRY_SECONDS_START
        while True:
            reason = await self._announce()
            if not reason:
                self._complaint, pause = "", RETRY_SECONDS_START
                await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.5, 1.0))
                continue
            if reason != self._complaint:
                self._complaint = reason
                log.warning("not joined, still trying: %s", reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _announce(self) -> str:
        """Why no manager has accepted; "" when one has."""
        reasons = []
        for manager in self._managers:
            try:
                for endpoint in await self._peers.resolver.resolve(manager):
                    reason = await self._ask(endpoint)
                    if not reason:
                        self._accept(manager)
                        return ""
                    reasons.append(reason)
                self._peers.resolver.forget(manager)
            except _RefusedError as error:
                return f"the manager at {manager} refuses: {error}"
            except (OSError, ProtocolError) as error:
                reasons.append(f"{manager}: {error}")
        return "; ".join(reasons)

    async def _ask(self, endpoint: Endpoint) -> str:
        """Why the manager at an endpoint cannot answer; "" when it has accepted. Raises _RefusedError."""
        body = msgspec.json.encode(self._announcement)
        try:
            status, answer = await self._peers.ask_endpoint(endpoint, "POST", JOIN_PATH, ANSWER_SECONDS_MAX, body=body)
        except OSError as error:
            return str(error)
        said = _error_of(answer) or str(status)
        if status == http.HTTPStatus.OK:
            return ""
        if status == http.HTTPStatus.UNAUTHORIZED:
            raise _RefusedError("it has another secret: give the cluster's with --secret-file")
        if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _RefusedError(said)
        return f"{endpoint.name}:{endpoint.port}: {said}"

    def _accept(self, manager: str) -> None:
        if not self.accepted or self._complaint:
            identity = self._announcement.identity
            log.info(
                "joined cluster %s by way of %s: node %s of region %s at %s",
                identity.cluster,
                manager,
                identity.node,
                identity.region,
                self._announcement.address,
            )
        self.accepted = True


def _error_of(body: bytes) -> str:
    """What a manager's answer says, in one line; "" where it is not one of a manager."""
    try:
        return " ".join(decode_json(body, _Refusal).error.split())
    except ProtocolError:
        return ""
