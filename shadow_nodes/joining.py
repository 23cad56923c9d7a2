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
import ssl
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.joining import JOIN_PATH, Announcement
from shadow_nodes.resolve import Endpoint, Resolver

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
    def __init__(
        self,
        announcement: Announcement,
        managers: Sequence[str],
        resolver: Resolver,
        headers: dict[str, str],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.accepted = False
        self._announcement = announcement
        self._managers = managers
        self._resolver = resolver
        self._headers = headers
        self._tls = tls
        self._complaint = ""

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
        async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session:
            pause = RETRY_SECONDS_START
            while True:
                reason = await self._announce(session)
                if not reason:
                    self._complaint, pause = "", RETRY_SECONDS_START
                    await asyncio.sleep(AGAIN_SECONDS * random.uniform(0.5, 1.0))
                    continue
                if reason != self._complaint:
                    self._complaint = reason
                    log.warning("not joined, still trying: %s", reason)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _announce(self, session: aiohttp.ClientSession) -> str:
        """Why no manager has accepted; "" when one has."""
        reasons = []
        for manager in self._managers:
            try:
                for endpoint in await self._resolver.resolve(manager):
                    reason = await self._ask(session, endpoint)
                    if not reason:
                        self._accept(manager)
                        return ""
                    reasons.append(reason)
                self._resolver.forget(manager)
            except _RefusedError as error:
                return f"the manager at {manager} refuses: {error}"
            except (OSError, ProtocolError) as error:
                reasons.append(f"{manager}: {error}")
        return "; ".join(reasons)

    async def _ask(self, session: aiohttp.ClientSession, endpoint: Endpoint) -> str:
        """Why the manager at an endpoint cannot answer; "" when it has accepted. Raises _RefusedError."""
        url = endpoint.url("http" if self._tls is None else "https", JOIN_PATH)
        security: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "server_hostname": endpoint.name}
        try:
            async with session.post(url, data=msgspec.json.encode(self._announcement), **security) as response:
                said = _error_of(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._resolver.failed(endpoint)
            return f"{endpoint.name}:{endpoint.port}: {error or type(error).__name__}"
        self._resolver.answered(endpoint)
        if response.status == http.HTTPStatus.OK:
            return ""
        if response.status == http.HTTPStatus.UNAUTHORIZED:
            raise _RefusedError("it has another secret: give the cluster's with --secret-file")
        if response.status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _RefusedError(said or str(response.status))
        return f"{endpoint.name}:{endpoint.port}: {said or response.status}"

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
        return " ".join(msgspec.json.decode(body, type=_Refusal).error.split())
    except msgspec.MsgspecError:
        return ""
