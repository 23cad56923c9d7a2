"""Names to addresses: ``host:port``, or a service name such as ``_shadowq._tcp.example.com`` (SRV, RFC 2782).

Model: answers are cached for their TTL, within bounds; whoever could not connect says ``forget``. Literal addresses and
localhost ask nobody. Invariant: only the first question for a name is waited for; later ones are asked while what is
known is tried again, so that links outlive their DNS and a dead one does not delay them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiodns

from shadow_nodes.protocol.errors import ProtocolError

log = logging.getLogger(__name__)

TTL_SECONDS_MIN = 1.0
TTL_SECONDS_MAX = 300.0
TTL_SECONDS_SYSTEM = 5.0
"""For answers of the system's resolver, which tells no TTL."""
QUERY_SECONDS_MAX = 1.0
QUERY_TRIES_MAX = 2
_TYPES = {"A": 1, "AAAA": 28, "SRV": 33}
LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """``name``: what the peer's certificate must be for."""

    ip: str
    port: int
    name: str

    def url(self, scheme: str, path: str) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{scheme}://{host}:{self.port}{path}"


@dataclass(frozen=True)
class _Answer:
    endpoints: list[Endpoint]
    until: float


class Resolver:
    """``nameservers`` (``ip`` or ``ip:port``) replace those of the system's configuration."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = list(nameservers)
        self._answers: dict[str, _Answer] = {}
        self._fresh: set[str] = set()
        self._asking: dict[str, asyncio.Task[list[Endpoint]]] = {}

    async def resolve(self, address: str) -> list[Endpoint]:
        """In the order in which to try them. Raises OSError where there is none, ProtocolError for a bad address."""
        known = self._answers.get(address)
        if known is None:
            return await self._learn(address)
        if address not in self._fresh or _now() >= known.until:
            self._refresh(address)
        return known.endpoints

    def forget(self, address: str) -> None:
        """The endpoints did not answer: ask anew when they are wanted the next time."""
        self._fresh.discard(address)

    async def close(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    async def _learn(self, address: str) -> list[Endpoint]:
        endpoints, ttl = await self._ask(address)
        self._answers[address] = _Answer(endpoints, _now() + min(max(ttl, TTL_SECONDS_MIN), TTL_SECONDS_MAX))
        self._fresh.add(address)
        return endpoints

    def _refresh(self, address: str) -> None:
        if address not in self._asking:
            task = self._asking[address] = asyncio.create_task(self._learn(address), name=f"resolve {address}")
            task.add_done_callback(lambda done: self._refreshed(address, done))

    def _refreshed(self, address: str, done: asyncio.Task[list[Endpoint]]) -> None:
        del self._asking[address]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.info("going on with what is known of %s: %s", address, error)

    async def _ask(self, address: str) -> tuple[list[Endpoint], float]:
        if address.startswith("_"):
            return await self._service(address)
        host, port = split_address(address)
        ips, ttl = await self._host(host)
        return [Endpoint(ip, port, host) for ip in ips], ttl

    async def _service(self, name: str) -> tuple[list[Endpoint], float]:
        records, ttl = await self._query(name, "SRV")
        endpoints: list[Endpoint] = []
        for record in sorted(records, key=lambda record: (record.priority, _draw(record.weight))):
            host = record.target.rstrip(".")
            try:
                ips, host_ttl = await self._host(host)
            except OSError:
                continue
            ttl = min(ttl, host_ttl)
            endpoints += [Endpoint(ip, record.port, host) for ip in ips]
        if not endpoints:
            raise OSError(f"no target of {name} has an address")
        return endpoints, ttl

    async def _host(self, host: str) -> tuple[list[str], float]:
        if host == "localhost":
            return list(LOCALHOST), TTL_SECONDS_MAX
        if _is_literal(host):
            return [host], TTL_SECONDS_MAX
        answers = await asyncio.gather(self._query(host, "A"), self._query(host, "AAAA"), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        if found:
            return [record.addr for records, _ in found for record in records], min(ttl for _, ttl in found)
        return await self._host_of_system(host)

    async def _host_of_system(self, host: str) -> tuple[list[str], float]:
        """What is in /etc/hosts, or needs a search domain. Raises OSError."""
        infos = await _getaddrinfo(host)
        return list(dict.fromkeys(str(info[4][0]) for info in infos)), TTL_SECONDS_SYSTEM

    async def _query(self, name: str, kind: str) -> tuple[list[Any], float]:
        """The data of the records of this kind, and the smallest TTL on the way to them. Raises OSError."""
        try:
            # a resolver for each question: c-ares keeps answers of its own, past which ``forget`` could not reach
            async with aiodns.DNSResolver(
                self._nameservers, timeout=QUERY_SECONDS_MAX, tries=QUERY_TRIES_MAX
            ) as resolver:
                result = await resolver.query_dns(name, kind)
        except aiodns.error.DNSError as error:
            raise OSError(f"DNS has no {kind} for {name}: {error}") from error
        records = [record.data for record in result.answer if record.type == _TYPES[kind]]
        if not records:
            raise OSError(f"DNS has no {kind} for {name}")
        return records, min(record.ttl for record in result.answer)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _getaddrinfo(host: str) -> list[Any]:
    """Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[ipv6]:port``. Raises ProtocolError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ProtocolError(f"{address!r} is not an address of the form host:port")
    return host, int(port)


def _draw(weight: int) -> float:
    """A sort key that puts each record of a priority first with a chance in proportion to its weight."""
    return -math.log(1.0 - random.random()) / (weight or 0.01)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
