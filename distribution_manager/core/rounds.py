"""Confirmation rounds: one question to each node serves every shard and request that waits for a confirmation.

Model: a round has a number, and the shards that it is for; each shard's ``confirmation`` counts the answers.
"""

from __future__ import annotations

from typing import Protocol

from distribution_manager.core.owner import ShardOwner
from distribution_manager.core.request import Now
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.limits import SILENCE_BOUND_MS
from shadow_nodes.protocol.messages import Confirm, Confirmed, Token, ToNode

CONFIRM_KEPT_MS = SILENCE_BOUND_MS
"""How long a confirmation round's answers count: a node that takes longer is as good as gone."""


class Asker(Protocol):
    now: Now
    owners: dict[ShardKey, ShardOwner]

    def send(self, node: str, message: ToNode) -> None: ...


class ConfirmationRounds:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._waiting: dict[ShardKey, None] = {}
        self._number = 0
        self._rounds: dict[int, tuple[int, list[ShardKey]]] = {}
        """When each round began, and for which shards."""

    def want(self, shard: ShardKey) -> None:
        """The shard takes part in the next round."""
        self._waiting[shard] = None

    def begin(self) -> None:
        """Begins a round, if any shard waits for one."""
        if not self._waiting:
            return
        owners = self._asker.owners
        shards = [shard for shard in self._waiting if shard in owners]
        self._waiting = {}
        self._number += 1
        now_ms = self._asker.now.monotonic_ms
        self._rounds[self._number] = now_ms, shards
        while self._rounds[oldest := next(iter(self._rounds))][0] < now_ms - CONFIRM_KEPT_MS:
            del self._rounds[oldest]
        asked: dict[str, list[tuple[ShardKey, Token]]] = {}
        for shard in shards:
            replication = owners[shard].replication
            if replication is None:
                continue
            owners[shard].begin_confirmation(self._number)
            for node in replication.followers:
                asked.setdefault(node, []).append((shard, replication.token))
        for node, questions in asked.items():
            self._asker.send(node, Confirm(self._number, questions))

    def confirmed(self, node: str, message: Confirmed) -> None:
        """A node has answered a round."""
        refused = set(message.refused)
        _, shards = self._rounds.get(message.round, (0, []))
        for shard in shards:
            owner = self._asker.owners.get(shard)
            if owner is not None and shard in refused:
                owner.on_refused(node)
            elif owner is not None:
                owner.on_confirmed(message.round, node)
