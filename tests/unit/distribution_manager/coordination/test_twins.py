"""The twin in memory answers every transaction as etcd does: the simulation stands on that."""

from __future__ import annotations

import random
from contextlib import aclosing

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.coordination.memory import MemoryCluster
from distribution_manager.coordination.memory_coordination import MemoryCoordination
from distribution_manager.core.transactions import (
    ABSENT,
    Compare,
    KeyValue,
    Outcome,
    Put,
    Remove,
    Snapshot,
    Transaction,
)

KEYS = [f"k{i}" for i in range(4)]


def some_transaction(chance: random.Random, revisions: dict[str, int], base: int) -> Transaction:
    """Compares that mostly hold; changes and reads of any keys."""
    compares = [
        Compare(
            key,
            revisions.get(key, ABSENT)
            if chance.random() < 0.8
            else chance.choice([ABSENT, base + chance.randrange(1, 200)]),
        )
        for key in chance.sample(KEYS, chance.randrange(3))
    ]
    changes: list[Put | Remove] = [
        Remove(key) if chance.random() < 0.4 else Put(key, chance.randbytes(3), leased=chance.random() < 0.2)
        for key in chance.sample(KEYS, chance.randrange(4))
    ]
    return Transaction(compares, changes, chance.sample(KEYS, chance.randrange(4)))


def from_base(outcome: Outcome, base: int) -> Outcome:
    found = {key: KeyValue(key, item.value, item.mod_revision - base) for key, item in sorted(outcome.found.items())}
    return Outcome(outcome.succeeded, outcome.revision - base, found)


@pytest.mark.cluster
@pytest.mark.timeout(30)
@pytest.mark.parametrize("seed", range(3))
async def test_the_same_transactions_have_the_same_outcomes(etcd: EmbeddedEtcd, seed: int) -> None:
    chance = random.Random(seed)
    real = EtcdCoordination(EtcdSettings(f"twins-{seed}", (etcd.endpoint,)))
    twin = MemoryCoordination(MemoryCluster())
    await real.start()
    await twin.start()
    real_base, twin_base = (await real.list_prefix("")).revision, twin.cluster.revision
    real_known: dict[str, int] = {}
    twin_known: dict[str, int] = {}
    async with aclosing(real.watch()) as real_watch, aclosing(twin.watch()) as twin_watch:
        assert isinstance(await anext(real_watch), Snapshot)
        assert isinstance(await anext(twin_watch), Snapshot)
        for _ in range(150):
            state = chance.getstate()
            real_outcome = await real.transact(some_transaction(chance, real_known, real_base))
            chance.setstate(state)
            twin_outcome = await twin.transact(some_transaction(chance, twin_known, twin_base))
            assert from_base(real_outcome, real_base) == from_base(twin_outcome, twin_base)
            for coordination, known in ((real, real_known), (twin, twin_known)):
                known.clear()
                known.update((item.key, item.mod_revision) for item in (await coordination.list_prefix("")).items)
        changes = {}
        for name, coordination, watch, base in (
            ("real", real, real_watch, real_base),
            ("twin", twin, twin_watch, twin_base),
        ):
            last = (await coordination.transact(Transaction([], [Put("end", b"")]))).revision
            changes[name] = []
            while not changes[name] or changes[name][-1][0] < last - base:
                item = await anext(watch)
                assert isinstance(item, list)
                changes[name] += [(change.mod_revision - base, change.key, change.value) for change in item]
    key = lambda change: change[:2]  # noqa: E731 - within one revision etcd gives no order
    assert sorted(changes["real"], key=key) == sorted(changes["twin"], key=key)
    await real.close()
    await twin.close()
