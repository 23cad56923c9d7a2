"""Moves of shards that this manager has begun by itself: from the decision until they have come about.

Model: WAITING (for a permit, where its cause needs one) -> MOVING (handoff.py: the primary, then the owner) -> over:
arrived, or given up. What was interrupted in between is asked for again until the bound.
Invariant: at most MOVES_AT_ONCE_MAX are under way here, and in the cluster as many of those with permits as there are
permits; a move that was given up leaves the shard owned, and is not begun anew for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.handoff import PROMOTION_BOUND_MS, Handoffs
from distribution_manager.core.owner import Phase, ShardOwner
from distribution_manager.core.permits import Office, Permits
from shadow_nodes.protocol.commands import ShardKey

MOVES_AT_ONCE_MAX = 16
"""Of one manager, of those with permits; and as many again of those without."""
PERMIT_WAIT_MS = 30_000
"""A move that has got no permit by then is given up: whether it is still wanted is decided anew."""
MOVE_BOUND_MS = PROMOTION_BOUND_MS + 5_000
OFFER_RETRY_MS = 1_000
"""An offer to the new owner that nothing came of is made again after this."""
GIVEN_UP_MS = 10_000
"""A shard whose move was given up stays for this long."""
WITHOUT_PERMIT = frozenset({causes.DRAIN, causes.FAILURE})
"""An operator waits for these, or clients do, and they are bounded by MOVES_AT_ONCE_MAX."""


class Move(msgspec.Struct, frozen=True):
    """``node``: the primary to be; where it is that already, the owner moves. ``why``: the numbers, for people."""

    shard: ShardKey
    node: str
    cause: str
    why: str = ""


class _UnderWay:
    def __init__(self, move: Move, now_ms: int) -> None:
        self.move = move
        self.began_ms = now_ms
        self.moving = False
        self.offered_ms = now_ms


class Ground(Office, Protocol):
    region: str
    owners: dict[ShardKey, ShardOwner]
    handoffs: Handoffs


class Relocations:
    """``arrived`` and ``given_up`` count moves by cause. ``on_move`` is told, for the log, when one has ``begun``,
    ``arrived``, or was ``given up``."""

    def __init__(self, ground: Ground, permits: int) -> None:
        self.arrived: dict[str, int] = {}
        self.given_up: dict[str, int] = {}
        self.on_move: Callable[[str, Move], None] = lambda event, move: None
        self._ground = ground
        self._permits = Permits(ground, permits)
        self._moves: dict[ShardKey, _UnderWay] = {}
        self._resting: dict[ShardKey, int] = {}
        """Until when a shard whose move was given up stays."""

    def may_begin(self, shard: ShardKey, cause: str) -> bool:
        """A move that waits for a permit gives way to one that needs none."""
        begun = self._moves.get(shard)
        if begun is not None and (begun.moving or cause not in WITHOUT_PERMIT):
            return False
        alike = sum(
            1 for item in self._moves.values() if (item.move.cause in WITHOUT_PERMIT) == (cause in WITHOUT_PERMIT)
        )
        return alike < MOVES_AT_ONCE_MAX and self._ground.now.monotonic_ms >= self._resting.get(shard, 0)

    def begin(self, move: Move) -> None:
        """Only what ``may_begin``."""
        self._moves[move.shard] = _UnderWay(move, self._ground.now.monotonic_ms)
        self._resting.pop(move.shard, None)
        self._go_on(self._moves[move.shard])

    def is_moving(self, shard: ShardKey) -> bool:
        """Whether its primary, or its owner, is on the way."""
        begun = self._moves.get(shard)
        return begun is not None and begun.moving

    @property
    def under_way(self) -> int:
        return len(self._moves)

    def tick(self) -> None:
        for item in list(self._moves.values()):
            self._go_on(item)
        self._permits.sweep(self._moves)

    def _go_on(self, item: _UnderWay) -> None:
        move, now_ms = item.move, self._ground.now.monotonic_ms
        if item.moving:
            self._pursue(item)
        elif move.cause in WITHOUT_PERMIT or self._permits.holds(move.shard):
            item.moving, item.began_ms, item.offered_ms = True, now_ms, now_ms
            self.on_move("begun", move)
            self._promote(item)
        elif now_ms - item.began_ms >= PERMIT_WAIT_MS or not self._serving(move.shard):
            self._end(item, arrived=False)
        else:
            self._permits.ask(move.shard)

    def _serving(self, shard: ShardKey) -> bool:
        owner = self._ground.owners.get(shard)
        return owner is not None and owner.phase is Phase.SERVING

    def _pursue(self, item: _UnderWay) -> None:
        move, now_ms = item.move, self._ground.now.monotonic_ms
        owner = self._ground.owners.get(move.shard)
        if owner is None or owner.phase is not Phase.SERVING:
            known = self._ground.directory.shards.get(move.shard)
            self._end(item, arrived=known is not None and known[0].primary == move.node)
        elif owner.record.primary == move.node and not self._must_follow(move):
            self._end(item, arrived=True)
        elif now_ms - item.began_ms >= MOVE_BOUND_MS:
            self._end(item, arrived=False)
        elif owner.record.primary == move.node and now_ms - item.offered_ms >= OFFER_RETRY_MS:
            item.offered_ms = now_ms
            self._promote(item)

    def _must_follow(self, move: Move) -> bool:
        """Whether the owner should be elsewhere, and can be."""
        ground = self._ground
        home = ground.directory.nodes.get(move.node)
        if home is None or home.region == ground.region:
            return False
        if ground.directory.region_draining(ground.region):
            return bool(ground.handoffs.managers_in(None))
        return bool(ground.handoffs.managers_in(home.region))

    def _promote(self, item: _UnderWay) -> None:
        handoffs, move = self._ground.handoffs, item.move
        refused = handoffs.promote(move.shard, move.node, move.cause)
        if refused:
            self._end(item, arrived=False)
            return
        home = self._ground.directory.nodes.get(move.node)
        owner = self._ground.owners[move.shard]
        alone = home is not None and not handoffs.managers_in(home.region)
        if alone and owner.record.primary == move.node and self._must_follow(move):
            handoffs.give_away(move.shard)

    def _end(self, item: _UnderWay, *, arrived: bool) -> None:
        shard, cause = item.move.shard, item.move.cause
        del self._moves[shard]
        counts = self.arrived if arrived else self.given_up
        counts[cause] = counts.get(cause, 0) + 1
        now_ms = self._ground.now.monotonic_ms
        if not arrived:
            self._resting = {other: until_ms for other, until_ms in self._resting.items() if until_ms > now_ms}
            self._resting[shard] = now_ms + GIVEN_UP_MS
        self.on_move("arrived" if arrived else "given up", item.move)
