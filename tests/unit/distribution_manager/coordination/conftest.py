"""The contract suite's two subjects: the twin in memory and a real etcd process, one per test session."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from distribution_manager.coordination.embedded import EmbeddedEtcd
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.coordination.interface import Coordination
from distribution_manager.coordination.memory import MemoryCluster
from distribution_manager.coordination.memory_coordination import MemoryCoordination

clusters = (f"contract-{number}" for number in itertools.count(1))

Make = Callable[[], Awaitable[Coordination]]


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd") / "data")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.cluster)])
async def make(request: pytest.FixtureRequest, etcd: EmbeddedEtcd) -> AsyncIterator[Make]:
    """Makes another manager's started coordination of the same, empty cluster."""
    made: list[Coordination] = []
    if request.param == "memory":
        shared = MemoryCluster()
        new: Callable[[], Coordination] = lambda: MemoryCoordination(shared)  # noqa: E731
    else:
        settings = EtcdSettings(next(clusters), (etcd.endpoint,), session_ttl_s=1)
        new = lambda: EtcdCoordination(settings)  # noqa: E731

    async def make() -> Coordination:
        coordination = new()
        made.append(coordination)
        await coordination.start()
        return coordination

    yield make
    for coordination in made:
        await coordination.close()
