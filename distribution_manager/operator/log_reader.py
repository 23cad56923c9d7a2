"""Reads a shard's operation log from its replicas, wherever they are, for the admin API.

Model: pages of the committed log come from one node after another over HTTP: the nearest that has more. What one has
forgotten another may still hold; one that dies is passed over.
Invariant: entries come in order, each once; what no node holds any more is said, never left out in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import msgspec

from distribution_manager.core.manager import ManagerCore
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.audit import LogPage, Outcome, decode_page
from shadow_nodes.protocol.commands import Caller, Entry, ShardKey, decode_entry
from shadow_nodes.protocol.errors import ProtocolError, ShadowQError
from shadow_nodes.protocol.limits import CALLERS_REPEATED_ENTRIES

PAGE_SECONDS_MAX = 5.0
"""A node that has not answered after this is passed over."""
POLL_SECONDS = 0.25
"""How often replicas are asked for more where there is none yet."""
PATIENCE_SECONDS = 10.0
"""How long is waited for entries that a replica had, and that none gives now."""


class LogError(ShadowQError):
    """The log cannot be read (on); the message says why."""

    status = 503
    """Of HTTP."""


class MistakeError(LogError):
    """What was asked for makes no sense."""

    status = 400


class LoggedEntry(msgspec.Struct, frozen=True):
    """An entry, its operations' outcomes by index, and its callers by number."""

    entry: Entry
    outcomes: dict[int, Outcome]
    callers: dict[int, Caller]


class Extent(msgspec.Struct, frozen=True):
    """What can be read of a log now: the entries after ``begins_seq``, up to ``end_seq``.

    ``after_seq``: where reading begins, for what was asked.
    """

    begins_seq: int
    end_seq: int
    after_seq: int


class LogReader:
    """For one shard."""

    def __init__(self, core: ManagerCore, peers: PeerHttp, shard: ShardKey) -> None:
        self._core = core
        self._peers = peers
        self._shard = shard
        self._preferred = ""

    async def extent(self, after_seq: int = 0, since_ms: int = 0) -> Extent:
        """Of all replicas that answer; nothing where each says that it has none: nothing was done to the queue yet.

        Raises LogError where none gives its log.
        """
        answers = await asyncio.gather(*(self._answer(node, after_seq, since_ms) for node in self._nodes()))
        if answers and all(answer is not None and answer[0] == HTTPStatus.NOT_FOUND for answer in answers):
            return Extent(0, 0, 0)
        pages = [page for page in map(_page, answers) if page is not None]
        if not pages:
            raise LogError("no node gives its log, as they are down, or have lost it: see shadowq status")
        widest = min(pages, key=lambda page: page.begins.seq)
        return Extent(widest.begins.seq, max(page.committed_seq for page in pages), widest.after_seq)

    async def entries(self, after_seq: int, end_seq: int | None) -> AsyncIterator[LoggedEntry | None]:
        """Entries after a seq, up to another; None without an end, each time there is no more for now.

        Raises LogError where entries are missing, or the queue is gone.
        """
        seq = max(0, after_seq - CALLERS_REPEATED_ENTRIES)
        callers: dict[tuple[int, int], Caller] = {}
        fruitless_s = 0.0
        while end_seq is None or seq < end_seq:
            page = await self._next_page(seq)
            if page is None:
                if end_seq is None:
                    yield None
                elif fruitless_s >= PATIENCE_SECONDS:
                    raise LogError(f"entries {seq + 1} to {end_seq} are on nodes that do not answer now")
                fruitless_s += POLL_SECONDS
                await asyncio.sleep(POLL_SECONDS)
                continue
            fruitless_s = 0.0
            if page.after_seq > max(seq, after_seq):
                raise LogError(f"entries {max(seq, after_seq) + 1} to {page.after_seq} are no longer kept")
            outcomes = dict(page.outcomes)
            for data in page.entries:
                entry = decode_entry(data)
                seq = entry.seq
                callers |= {(entry.epoch, caller.number): caller for caller in entry.callers}
                if seq > after_seq and (end_seq is None or seq <= end_seq):
                    yield _logged(entry, outcomes, callers)

    async def _next_page(self, seq: int) -> LogPage | None:
        """From the first node that has entries after ``seq``; from that which reaches farthest back where none does."""
        if self._core.directory.metadata(self._shard) is None:
            raise LogError("the queue has been deleted")
        late: LogPage | None = None
        for node in self._nodes():
            page = await self._ask(node, seq, 0)
            if page is None or not page.entries:
                continue
            if page.after_seq <= seq:
                self._preferred = node
                return page
            if late is None or page.after_seq < late.after_seq:
                late = page
        return late

    def _nodes(self) -> list[str]:
        """Nodes with a replica: the one that was read from last, then the nearest."""
        known = self._core.directory.shards.get(self._shard)
        nodes = [] if known is None else [replica.node for replica in known[0].replicas]
        return sorted(nodes, key=lambda node: (node != self._preferred, self._core.distance_ms(node)))

    async def _ask(self, node: str, after_seq: int, since_ms: int) -> LogPage | None:
        return _page(await self._answer(node, after_seq, since_ms))

    async def _answer(self, node: str, after_seq: int, since_ms: int) -> tuple[int, bytes] | None:
        """Status and body; None where there is no answer."""
        address = self._core.address(node)
        if address is None:
            return None
        query = {"after": str(after_seq), "since_ms": str(since_ms)}
        try:
            return await self._peers.ask(
                address, "GET", f"/replica/{self._shard}/operations", PAGE_SECONDS_MAX, query=query
            )
        except OSError:
            return None


def _page(answer: tuple[int, bytes] | None) -> LogPage | None:
    if answer is None or answer[0] != HTTPStatus.OK:
        return None
    try:
        return decode_page(answer[1])
    except ProtocolError:
        return None


def _logged(
    entry: Entry, outcomes: dict[int, list[tuple[int, Outcome]]], callers: dict[tuple[int, int], Caller]
) -> LoggedEntry:
    numbers = {operation.caller for operation in entry.operations}
    mine = {number: callers[entry.epoch, number] for number in numbers if (entry.epoch, number) in callers}
    return LoggedEntry(entry, dict(outcomes.get(entry.seq, ())), mine)
