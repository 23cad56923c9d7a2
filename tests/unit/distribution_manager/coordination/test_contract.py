"""What every implementation of Coordination keeps, the twin in memory as much as etcd."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from distribution_manager.coordination.interface import (
    TRANSACTION_OPERATIONS_MAX,
    Coordination,
    CoordinationUnavailable,
)
from distribution_manager.core.transactions import ABSENT, Change, Compare, Put, Remove, Snapshot, Transaction

Make = Callable[[], Awaitable[Coordination]]
Watch = AsyncGenerator[Snapshot | list[Change], None]

pytestmark = pytest.mark.timeout(20)


def put(key: str, value: bytes = b"", *, leased: bool = False) -> Transaction:
    return Transaction([], [Put(key, value, leased)])


async def changes_until(watch: Watch, last_revision: int) -> list[Change]:
    """What a watch gives up to and including a revision; it must not give a Snapshot."""
    changes: list[Change] = []
    while not changes or changes[-1].mod_revision < last_revision:
        item = await anext(watch)
        assert isinstance(item, list)
        assert item
        changes += item
    return changes


async def test_a_lock_is_taken_once_and_the_loser_reads_the_winner(make: Make) -> None:
    coordination = await make()
    first = await coordination.transact(Transaction([Compare("lock", ABSENT)], [Put("lock", b"one")], ["lock"]))
    second = await coordination.transact(Transaction([Compare("lock", ABSENT)], [Put("lock", b"two")], ["lock"]))
    assert first.succeeded
    assert not second.succeeded
    assert first.found["lock"].value == second.found["lock"].value == b"one"
    assert first.found["lock"].mod_revision == second.found["lock"].mod_revision == first.revision == second.revision


async def test_a_lock_is_replaced_only_by_who_saw_it_last(make: Make) -> None:
    coordination = await make()
    seen = (await coordination.transact(put("lock", b"one"))).revision
    taken = await coordination.transact(Transaction([Compare("lock", seen)], [Put("lock", b"two")]))
    late = await coordination.transact(Transaction([Compare("lock", seen)], [Put("lock", b"three")], ["lock"]))
    assert taken.succeeded
    assert not late.succeeded
    assert late.found["lock"].value == b"two"


async def test_a_value_that_is_compared_must_be_there_as_well(make: Make) -> None:
    coordination = await make()
    seen = (await coordination.transact(put("lock", b"one"))).revision
    other = await coordination.transact(Transaction([Compare("lock", seen, b"two")], [Put("lock", b"three")]))
    absent = await coordination.transact(Transaction([Compare("none", ABSENT, b"")], [Put("lock", b"three")]))
    same = await coordination.transact(Transaction([Compare("lock", seen, b"one")], [Put("lock", b"four")], ["lock"]))
    assert (other.succeeded, absent.succeeded, same.succeeded) == (False, False, True)
    assert same.found["lock"].value == b"four"


async def test_of_many_contenders_one_wins_each_round(make: Make) -> None:
    managers = [await make() for _ in range(3)]
    revision = ABSENT
    for _ in range(5):
        take = Transaction([Compare("lock", revision)], [Put("lock", b"")])
        outcomes = await asyncio.gather(*(manager.transact(take) for manager in managers * 4))
        (winner,) = (outcome for outcome in outcomes if outcome.succeeded)
        revision = winner.revision


async def test_every_comparison_must_hold(make: Make) -> None:
    coordination = await make()
    seen = (await coordination.transact(put("a"))).revision
    both = Transaction([Compare("a", seen), Compare("b", seen)], [Put("c", b"")], ["a", "b", "c"])
    outcome = await coordination.transact(both)
    assert not outcome.succeeded
    assert list(outcome.found) == ["a"]


async def test_reads_see_what_their_own_transaction_changed(make: Make) -> None:
    coordination = await make()
    await coordination.transact(put("old"))
    outcome = await coordination.transact(Transaction([], [Put("new", b"n"), Remove("old")], ["new", "old"]))
    assert {key: item.value for key, item in outcome.found.items()} == {"new": b"n"}
    assert outcome.found["new"].mod_revision == outcome.revision


async def test_get_and_list(make: Make) -> None:
    coordination = await make()
    for key in ("b/2", "a/1", "b/1", "b", "c"):
        await coordination.transact(put(key, key.encode()))
    item = await coordination.get("b/1")
    assert item is not None
    assert (item.key, item.value) == ("b/1", b"b/1")
    assert await coordination.get("b/3") is None
    listed = await coordination.list_prefix("b/")
    assert [item.key for item in listed.items] == ["b/1", "b/2"]
    assert item in listed.items
    assert [item.key for item in (await coordination.list_prefix("")).items] == ["a/1", "b", "b/1", "b/2", "c"]


async def test_a_listing_of_many_pages(make: Make) -> None:
    coordination = await make()
    for start in range(0, 1_200, 100):
        await coordination.transact(Transaction([], [Put(f"{start + i:04}", b"") for i in range(100)]))
    listed = await coordination.list_prefix("")
    assert [item.key for item in listed.items] == [f"{i:04}" for i in range(1_200)]


async def test_removing_what_is_not_there_changes_nothing(make: Make) -> None:
    coordination = await make()
    before = (await coordination.transact(put("a"))).revision
    assert (await coordination.transact(Transaction([], [Remove("b")]))).revision == before


async def test_what_no_store_would_take_is_refused_before_it_is_sent(make: Make) -> None:
    coordination = await make()
    many = [Put(str(i), b"") for i in range(TRANSACTION_OPERATIONS_MAX + 1)]
    for changes in (many, [Put("a", b""), Remove("a")], [Put("a", bytes(1_000_001))]):
        with pytest.raises(ValueError, match="transaction"):
            await coordination.transact(Transaction([], changes))
    assert (await coordination.transact(Transaction([], many[1:]))).succeeded


async def test_a_watch_gives_a_snapshot_then_changes_in_order(make: Make) -> None:
    coordination = await make()
    first = await coordination.transact(put("a", b"1"))
    async with aclosing(coordination.watch()) as watch:
        snapshot = await anext(watch)
        assert isinstance(snapshot, Snapshot)
        assert [(item.key, item.value) for item in snapshot.items] == [("a", b"1")]
        assert snapshot.revision >= first.revision
        second = await coordination.transact(Transaction([], [Put("b", b"2"), Remove("a")]))
        third = await coordination.transact(put("b", b"3"))
        changes = await changes_until(watch, third.revision)
        assert sorted(changes[:2], key=lambda change: change.key) == [
            Change("a", None, second.revision),
            Change("b", b"2", second.revision),
        ]
        assert changes[2:] == [Change("b", b"3", third.revision)]


async def test_watches_miss_nothing_that_managers_do_at_once(make: Make) -> None:
    managers = [await make() for _ in range(3)]
    chance = random.Random(1)

    async def work(manager: Coordination) -> None:
        for _ in range(30):
            key = f"k{chance.randrange(5)}"
            change = Remove(key) if chance.random() < 0.3 else Put(key, chance.randbytes(4))
            await manager.transact(Transaction([], [change, Put("last", b"")]))

    async def follow(manager: Coordination) -> dict[str, bytes]:
        known: dict[str, bytes] = {}
        revision = 0
        async with aclosing(manager.watch()) as watch:
            while "end" not in known:
                item = await anext(watch)
                if isinstance(item, Snapshot):
                    assert not known
                    known = {each.key: each.value for each in item.items}
                    revision = item.revision
                    continue
                for change in item:
                    assert revision <= change.mod_revision <= revision + 1, "a repeat or a gap"
                    revision = change.mod_revision
                    if change.value is None:
                        del known[change.key]
                    else:
                        known[change.key] = change.value
        return known

    followers = [asyncio.create_task(follow(manager)) for manager in managers]
    await asyncio.gather(*(work(manager) for manager in managers))
    await managers[0].transact(put("end"))
    stored = {item.key: item.value for item in (await managers[0].list_prefix("")).items}
    assert await asyncio.gather(*followers) == [stored] * len(managers)


async def test_a_closed_watch_and_a_closed_coordination_end(make: Make) -> None:
    coordination = await make()
    watch, waiting = coordination.watch(), coordination.watch()
    assert isinstance(await anext(watch), Snapshot)
    await watch.aclose()
    assert isinstance(await anext(waiting), Snapshot)
    rest = asyncio.create_task(anext(waiting, None))
    await asyncio.sleep(0)
    await coordination.close()
    assert await rest is None
    with pytest.raises(CoordinationUnavailable):
        await coordination.transact(put("a"))
    with pytest.raises(CoordinationUnavailable):
        await coordination.get("a")


async def test_leased_keys_go_when_their_process_closes(make: Make) -> None:
    staying, leaving = await make(), await make()
    await leaving.transact(Transaction([], [Put("leased", b"", leased=True), Put("kept", b"")]))
    async with aclosing(staying.watch()) as watch:
        assert isinstance(await anext(watch), Snapshot)
        await leaving.close()
        (change,) = await changes_until(watch, 0)
        assert (change.key, change.value) == ("leased", None)
    assert await staying.get("kept") is not None


async def test_a_key_put_again_without_lease_stays(make: Make) -> None:
    staying, leaving = await make(), await make()
    await leaving.transact(put("key", leased=True))
    await staying.transact(put("key"))
    await leaving.close()
    assert await staying.get("key") is not None


async def test_sessions_are_told(make: Make) -> None:
    coordination = await make()
    early: asyncio.Queue[int] = asyncio.Queue()
    coordination.on_session(early.put_nowait)
    await coordination.transact(put("key", leased=True))  # waits for a session
    late: list[int] = []
    coordination.on_session(late.append)
    assert late == [coordination.session] == [await early.get()]


async def test_health_and_counters(make: Make) -> None:
    coordination = await make()
    await coordination.get("key")
    assert coordination.healthy
    counters = coordination.counters
    assert counters.calls > 0
    assert counters.errors == counters.unknown_outcomes == 0
    assert counters.last_success_s is not None
