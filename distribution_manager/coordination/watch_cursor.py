"""Where a watch stands, and whether what etcd says next continues what it said before. Pure.

Model: after an interruption the watch is asked for again from the revision of the last item delivered, including that
revision.
Invariant: nothing is delivered after an interruption until etcd has repeated that last revision exactly. Going on from
last + 1 on trust would go wrong silently where an etcd lost its data, or came back from a backup, and has passed that
number again with another history (neither its cluster id nor the revision would show it).
"""

from __future__ import annotations

from distribution_manager.core.transactions import Change, Snapshot


class HistoryDiffersError(Exception):
    """What was delivered is no longer etcd's history: only a new Snapshot helps."""


class WatchCursor:
    def __init__(self) -> None:
        self._delivered = 0
        """Changes up to and including this revision are delivered."""
        self._anchor: frozenset[tuple[str, bytes | None]] = frozenset()
        """The latest changes known, all of one revision, ``_anchor_revision``."""
        self._anchor_revision = 0
        self._verifying = False

    @property
    def resume_revision(self) -> int:
        """Where a stream must start; 0: a Snapshot is needed first."""
        return self._anchor_revision

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]  # as new

    def begin(self, snapshot: Snapshot) -> None:
        """A Snapshot was delivered. An empty one gives nothing to verify against; a new one costs nothing."""
        self._delivered = snapshot.revision
        self._anchor_revision = max((item.mod_revision for item in snapshot.items), default=0)
        self._anchor = frozenset(
            (item.key, item.value) for item in snapshot.items if item.mod_revision == self._anchor_revision
        )
        self._verifying = False

    def resume(self, revision: int) -> None:
        """A stream from ``resume_revision`` was opened; then the store's revision was read, linearizably.

        Raises HistoryDiffersError.
        """
        if revision < self._delivered:
            raise HistoryDiffersError(f"the store's revision went back from {self._delivered} to {revision}")
        self._verifying = True

    def accept(self, changes: list[Change]) -> list[Change]:
        """The changes of one response of the stream, those that are new. Raises HistoryDiffersError."""
        if not changes:
            return []
        if self._verifying:
            repeated = {
                (change.key, change.value) for change in changes if change.mod_revision == self._anchor_revision
            }
            if not self._anchor <= repeated:
                raise HistoryDiffersError(f"the store holds another history of revision {self._anchor_revision}")
            self._verifying = False
        new = [change for change in changes if change.mod_revision > self._delivered]
        if new:
            last = new[-1].mod_revision
            self._delivered = self._anchor_revision = last
            self._anchor = frozenset((change.key, change.value) for change in new if change.mod_revision == last)
        return new
