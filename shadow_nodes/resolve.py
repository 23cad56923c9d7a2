"""Names to addresses, for whoever connects: ``host:port``, or a service such as ``_shadowq._tcp.example.com`` (SRV).

Model: answers are kept for their TTL, within bounds; whoever could not connect says ``failed`` and ``forget``. Literal
addresses and localhost ask nobody. Several addresses come in the order in which to try them: services by priority and
weight (RFC 2782), IPv4 before IPv6, what failed lately last.
Invariant: only the first question for a name is waited for; later ones are asked while what is known is tried again, so
that links outlive their DNS and a dead one does not delay them. What DNS said last is used for as long as it says
nothing else, however long that is: the log and ``stale`` tell.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiodns

from shadow_nodes.protocol.addresses import Address, is_literal, parse_peer
from shadow_nodes.protocol.errors import ProtocolError

log = logging.getLogger(__name__)

TTL_SECONDS_MIN = 1.0
"""Also the pause after a question that got no answer."""
TTL_SECONDS_MAX = 300.0
TTL_SECONDS_SYSTEM = 5.0
"""For answers of the system's resolver, which tells no TTL."""
RECORDS_MAX = 64
"""Of an answer; what it says beyond is passed over. Each may cost a question more, and tries to connect."""
QUERY_SECONDS_MAX = 1.0
QUERY_TRIES_MAX = 2
FAILED_SECONDS = 30.0
"""For how long an endpoint that did not answer comes after the others of its name."""
_TYPES = {"A": 1, "AAAA": 28, "SRV": 33}
_NO_SUCH_RECORD = frozenset({aiodns.error.ARES_ENODATA, aiodns.error.ARES_ENOTFOUND})
LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """``name``: what the peer's certificate must be for: the host of ``host:port``, or the target of the SRV record."""

    ip: str
    port: int
    name: str

    @property
    def host(self) -> str:
        """The IP address, IPv6 in brackets."""
        return f"[{self.ip}]" if ":" in self.ip else self.ip

    def url(self, scheme: str, path: str) -> str:
        return f"{scheme}://{self.host}:{self.port}{path}"


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
        self._records: dict[tuple[str, str], list[Any]] = {}
        """What DNS said last, by name and type."""
        self._stale: set[str] = set()
        self._failed: dict[tuple[str, int], float] = {}

    @property
    def stale(self) -> int:
        """Questions whose last answer is out of date, because DNS does not answer or has nothing any more."""
        return len(self._stale)

    async def resolve(self, address: str) -> list[Endpoint]:
        """In the order in which to try them. Raises OSError where there is none, ProtocolError for a bad address."""
        known = self._answers.get(address)
        if known is None:
            return self._ordered(await self._learn(address))
        if address not in self._fresh or _now() >= known.until:
            self._refresh(address)
        return self._ordered(known.endpoints)

    async def expired(self, address: str) -> list[Endpoint]:
        """Waits until what is known has expired; what is known then, asked anew. Raises as ``resolve`` does."""
        known = self._answers.get(address)
        if known is not None:
            await asyncio.sleep(max(0.0, known.until - _now()))
        return await self.renewed(address)

    async def renewed(self, address: str) -> list[Endpoint]:
        """Asks anew, and waits for that; what is known then. Raises as ``resolve`` does."""
        if address in self._answers:
            self._refresh(address)
            await asyncio.wait([self._asking[address]])
        return await self.resolve(address)

    async def targets(self, address: str) -> tuple[list[str], float]:
        """The ``host:port`` of each of a service's targets, or the address itself; and for how many seconds this holds.

        Raises OSError, ProtocolError.
        """
        if not _parse(address).is_service:
            return [address], TTL_SECONDS_MAX
        records, ttl = await self._query(address, "SRV")
        return [f"{record.target.rstrip('.')}:{record.port}" for record in records], _bounded(ttl)

    def forget(self, address: str) -> None:
        """The endpoints did not answer: ask anew when they are wanted the next time."""
        self._fresh.discard(address)

    def failed(self, endpoint: Endpoint) -> None:
        now = _now()
        self._failed = {place: until for place, until in self._failed.items() if until > now}
        self._failed[endpoint.ip, endpoint.port] = now + FAILED_SECONDS

    def answered(self, endpoint: Endpoint) -> None:
        self._failed.pop((endpoint.ip, endpoint.port), None)

    async def close(self) -> None:
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)

    def _ordered(self, endpoints: list[Endpoint]) -> list[Endpoint]:
        now = _now()
        return sorted(endpoints, key=lambda endpoint: self._failed.get((endpoint.ip, endpoint.port), 0.0) > now)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _learn(self, address: str) -> list[Endpoint]:
        endpoints, ttl = await self._ask(address)
        self._answers[address] = _Answer(endpoints, _now() + _bounded(ttl))
        self._fresh.add(address)
        return endpoints

    def _refresh(self, address: str) -> None:
        if address not in self._asking:
            task = self._asking[address] = asyncio.create_task(self._learn(address), name=f"resolve {address}")
            task.add_done_callback(lambda done: self._refreshed(address, done))

    def _refreshed(self, address: str, done: asyncio.Task[list[Endpoint]]) -> None:
        del self._asking[address]
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._note(address, "")
            return
        self._note(address, str(error))
        self._answers[address] = _Answer(self._answers[address].endpoints, _now() + TTL_SECONDS_MIN)
        self._fresh.add(address)

    def _note(self, question: str, error: str) -> None:
        """Logs when an answer goes out of date, and when it is renewed."""
        if error and question not in self._stale:
            self._stale.add(question)
            log.warning("going on with what DNS said last of %s: %s", question, error)
        elif not error and question in self._stale:
            self._stale.discard(question)
            log.info("DNS answers again for %s", question)

    async def _ask(self, address: str) -> tuple[list[Endpoint], float]:
        where = _parse(address)
        if where.is_service:
            return await self._service(where.host)
        ips, ttl = await self._host(where.host)
        return [Endpoint(ip, where.port, where.host) for ip in ips], ttl

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
        if is_literal(host):
            return [host], TTL_SECONDS_MAX
        answers = await asyncio.gather(self._query(host, "A"), self._query(host, "AAAA"), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        if found:
            return [record.addr for records, _ in found for record in records], min(ttl for _, ttl in found)
        return await self._host_of_system(host)

    async def _host_of_system(self, host: str) -> tuple[list[str], float]:
        """What is in /etc/hosts, or needs a search domain. Raises OSError."""
        try:
            infos = await _getaddrinfo(host)
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host's name: {error}") from error
        return list(dict.fromkeys(str(info[4][0]) for info in infos)), TTL_SECONDS_SYSTEM

    async def _query(self, name: str, kind: str) -> tuple[list[Any], float]:
        """The data of the records of this kind, and the smallest TTL on the way to them. Raises OSError.

        What was said last is said again where DNS fails to answer; that there is no such record is an answer.
        """
        question = f"{name} {kind}"
        try:
            records, ttl = await self._query_dns(name, kind)
        except aiodns.error.DNSError as error:
            last = self._records.get((name, kind))
            if error.args[0] not in _NO_SUCH_RECORD and last is not None:
                self._note(question, str(error))
                return last, TTL_SECONDS_MIN
            records, ttl = [], 0.0
            reason = f": {error}"
        else:
            reason = ""
        self._note(question, "")
        if not records:
            self._records.pop((name, kind), None)
            raise OSError(f"DNS has no {kind} for {name}{reason}")
        self._records[name, kind] = records
        return records, ttl

    async def _query_dns(self, name: str, kind: str) -> tuple[list[Any], float]:
        """Raises DNSError."""
        # a resolver for each question: c-ares keeps answers of its own, past which ``forget`` could not reach
        async with aiodns.DNSResolver(self._nameservers, timeout=QUERY_SECONDS_MAX, tries=QUERY_TRIES_MAX) as resolver:
            result = await resolver.query_dns(name, kind)
        records = [record.data for record in result.answer if record.type == _TYPES[kind]]
        return records[:RECORDS_MAX], min((record.ttl for record in result.answer), default=0.0)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _getaddrinfo(host: str) -> list[Any]:
    """Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)


def is_fixed(address: str) -> bool:
    """Whether no DNS is asked about it."""
    host, _, _ = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return host == "localhost" or is_literal(host)


def _parse(address: str) -> Address:
    """Raises ProtocolError."""
    try:
        return parse_peer(address)
    except ValueError as error:
        raise ProtocolError(str(error)) from error


def _bounded(ttl: float) -> float:
    return min(max(ttl, TTL_SECONDS_MIN), TTL_SECONDS_MAX)


def _draw(weight: int) -> float:
    """A sort key that puts each record of a priority first with a chance in proportion to its weight."""
    return -math.log(1.0 - random.random()) / (weight or 0.01)
