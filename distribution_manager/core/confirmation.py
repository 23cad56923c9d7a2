"""Empty answers and counts, which are given only after a quorum has confirmed the owner's token anew.

Model: requests wait for the next round; a round that began after a request came, and that a quorum of every voter set
answers, confirms it (Raft's ReadIndex: Ongaro's dissertation, section 6.4). One round is under way per shard.
"""

from __future__ import annotations

from distribution_manager.core.replication import Replication, quorum
from distribution_manager.core.request import Request, Surroundings


class Confirmation:
    def __init__(self, around: Surroundings) -> None:
        self.waiting: list[Request] = []
        self._around = around
        self._under_way: list[Request] = []
        self._votes: set[str] = set()
        self._round = 0
        self._asked_ms = 0

    @property
    def under_way(self) -> bool:
        return bool(self._under_way)

    @property
    def wanted(self) -> bool:
        """Whether a round should begin."""
        return bool(self.waiting) and not self._under_way

    def begin(self, number: int) -> None:
        """A round begins: it serves what waits now."""
        self._under_way, self.waiting = self.waiting, []
        self._round = number
        self._votes = set()
        self._asked_ms = self._around.now.monotonic_ms

    def vote(self, number: int, node: str, replication: Replication) -> list[Request]:
        """A node has confirmed the token in this round. Returns the requests that are confirmed by that."""
        if number != self._round or not self._under_way:
            return []
        self._votes.add(node)
        for voters in replication.voter_sets:
            votes = sum(
                1
                for replica in voters
                if replica.node in self._votes and self._around.incarnation(replica.node) == replica.incarnation
            )
            if votes < quorum(len(voters)):
                return []
        confirmed, self._under_way = self._under_way, []
        return [request for request in confirmed if not request.finished]

    def chase(self, bound_ms: int) -> None:
        """A round that is not answered in time begins anew."""
        if self._under_way and self._around.now.monotonic_ms - self._asked_ms >= bound_ms:
            self.waiting += [request for request in self._under_way if not request.finished]
            self._under_way = []

    def drain(self) -> list[Request]:
        requests = [*self.waiting, *self._under_way]
        self.waiting, self._under_way = [], []
        return requests
