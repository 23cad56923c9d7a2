"""Reading a log from replicas that die, lag, or have forgotten its beginning."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from distribution_manager.operator import log_reader
from distribution_manager.operator.log_reader import LogError, LogReader
from shadow_nodes.protocol.audit import LogPage, encode_page
from shadow_nodes.protocol.commands import Caller, Entry, Operation, Purge, Session, encode
from shadow_nodes.protocol.limits import CALLERS_REPEATED_ENTRIES
from shadow_nodes.protocol.messages import Position

SHARD = "0000000000000007/0"
PAGE_ENTRIES = 10
NO_REPLICA = -1


def entry(seq: int) -> bytes:
    callers = [Caller(1, "KEY", "here")] if (seq - 1) % CALLERS_REPEATED_ENTRIES == 0 else []
    return encode(Entry(1, seq, seq * 1000, [Session(5, 0)], [Operation(0, seq, Purge(), 1)], callers))


class Peers:
    """Nodes by name: (entries after this one are kept, up to this one)."""

    def __init__(self, **nodes: tuple[int, int]) -> None:
        self.nodes = nodes
        self.asked: list[str] = []

    async def ask(
        self, address: str, method: str, path: str, timeout_s: float, *, query: dict[str, str]
    ) -> tuple[int, bytes]:
        self.asked.append(address)
        if address not in self.nodes:
            raise OSError("refused")
        begins, end = self.nodes[address]
        if end == NO_REPLICA:
            return 404, b"is not here"
        after = max(int(query["after"]), begins)
        entries = [entry(seq) for seq in range(after + 1, min(end, after + PAGE_ENTRIES) + 1)]
        return 200, encode_page(LogPage(Position(1, begins), end, after, entries, []))

    def reader(self, *names: str) -> LogReader:
        replicas = tuple(SimpleNamespace(node=name) for name in names)
        directory = SimpleNamespace(shards={SHARD: (SimpleNamespace(replicas=replicas), 1)}, metadata=lambda _: "q")
        core: Any = SimpleNamespace(directory=directory, distance_ms=names.index, address=lambda name: name)
        return LogReader(core, self, SHARD)  # type: ignore[arg-type]


async def seqs(reader: LogReader, after_seq: int, end_seq: int) -> list[int]:
    return [one.entry.seq async for one in reader.entries(after_seq, end_seq) if one is not None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(log_reader, "PATIENCE_SECONDS", 0.01)


async def test_the_nearest_is_read_and_another_when_it_dies() -> None:
    peers = Peers(a=(0, 100), b=(0, 100))
    found = []
    async for one in peers.reader("a", "b").entries(0, 100):
        assert one is not None
        found.append(one.entry.seq)
        if one.entry.seq == 35:
            assert set(peers.asked) == {"a"}
            del peers.nodes["a"]
    assert found == list(range(1, 101))


async def test_a_queue_that_was_never_used_has_an_empty_log() -> None:
    nowhere = (0, NO_REPLICA)
    extent = await Peers(a=nowhere, b=nowhere, c=nowhere).reader("a", "b", "c").extent()
    assert (extent.begins_seq, extent.end_seq) == (0, 0)
    assert await seqs(Peers(a=nowhere).reader("a"), 0, 0) == []
    with pytest.raises(LogError, match="no node gives its log"):
        await Peers(a=nowhere, b=nowhere).reader("a", "b", "dead").extent()
    assert (await Peers(a=nowhere, b=(0, 7)).reader("a", "b").extent()).end_seq == 7


async def test_one_that_lags_is_left_for_one_that_does_not() -> None:
    assert await seqs(Peers(a=(0, 15), b=(0, 40)).reader("a", "b"), 0, 40) == list(range(1, 41))


async def test_the_longest_log_counts() -> None:
    peers = Peers(a=(50, 100), b=(20, 90))
    reader = peers.reader("a", "b", "gone")
    extent = await reader.extent()
    assert (extent.begins_seq, extent.end_seq, extent.after_seq) == (20, 100, 20)
    assert await seqs(reader, extent.after_seq, extent.end_seq) == list(range(21, 101))


async def test_what_nobody_has_any_more_is_said() -> None:
    with pytest.raises(LogError, match="entries 6 to 50 are no longer kept"):
        await seqs(Peers(a=(50, 100)).reader("a"), 5, 100)


async def test_what_nobody_gives_now_is_said() -> None:
    with pytest.raises(LogError, match="entries 91 to 100 are on nodes that do not answer"):
        await seqs(Peers(a=(0, 90)).reader("a", "gone"), 0, 100)
    with pytest.raises(LogError, match="no node"):
        await Peers().reader("gone").extent()


async def test_callers_told_earlier_are_known() -> None:
    reader = Peers(a=(0, 200)).reader("a")
    found = [one async for one in reader.entries(100, 140)]
    assert [one.entry.seq for one in found if one] == list(range(101, 141))
    assert all(one.callers == {1: Caller(1, "KEY", "here")} for one in found if one)


async def test_following_waits_for_more() -> None:
    peers = Peers(a=(0, 3))
    found: list[int | None] = []
    async for one in peers.reader("a").entries(0, None):
        found.append(one and one.entry.seq)
        if one is None:
            peers.nodes["a"] = (0, 5)
        if found[-1] == 5:
            break
    assert found == [1, 2, 3, None, 4, 5]
