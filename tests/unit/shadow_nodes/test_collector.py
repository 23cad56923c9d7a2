"""The cyclic collector: what survives is walked once, and what was frozen alive does not stay for ever once dead."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from shadow_nodes.collector import Collector


class Ring:
    """Garbage in a cycle, once nobody else holds it."""

    def __init__(self) -> None:
        self.self = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector(slack_objects=-(1 << 40), collections_per_count=2)
    collector.start()
    yield collector
    collector.stop()
    gc.collect()


def test_what_survives_a_full_collection_is_frozen(collector: Collector) -> None:
    kept = [Ring() for _ in range(1_000)]
    before = gc.get_freeze_count()
    gc.collect()
    assert gc.get_freeze_count() >= before + len(kept)


def test_a_young_cycle_goes_at_the_next_collection(collector: Collector) -> None:
    ring = Ring()
    gone = weakref.ref(ring)
    del ring
    gc.collect()
    assert gone() is None


def test_a_frozen_cycle_goes_at_the_next_thorough_collection(collector: Collector) -> None:
    ring = Ring()
    gone = weakref.ref(ring)
    gc.collect()
    del ring
    for _ in range(2):
        gc.collect()
    assert gone() is None


def test_without_much_frozen_no_collection_is_thorough() -> None:
    collector = Collector(collections_per_count=1)
    collector.start()
    try:
        ring = Ring()
        gone = weakref.ref(ring)
        gc.collect()
        del ring
        gc.collect()
        assert gone() is not None
    finally:
        collector.stop()
    gc.collect()
    assert gone() is None
