"""Every operation happens once: the results of those that may be asked for again.

Model: per session the results of its operations by counter, from the mark on (Ongaro's dissertation, section 6.3).
Invariant: the mark never falls while the session is known. A counter below the mark is refused whatever is still in
memory, so it cannot be noticed when results are dropped.
A Tick neither makes nor prolongs a session: otherwise ticks that end idle sessions would keep themselves going.
"""

from __future__ import annotations

from collections import deque

from shadow_nodes.protocol.commands import Result, Session
from shadow_nodes.protocol.limits import SESSION_IDLE_MS


class SessionState:
    """``number`` is its row's; ``last_ms`` the time of its last operation; ``known``: the shard remembers it."""

    __slots__ = ("changed", "counters", "id", "known", "last_ms", "mark", "number", "results")

    def __init__(self, session_id: int, number: int) -> None:
        self.id = session_id
        self.number = number
        self.mark = 0
        self.last_ms = -1
        self.known = False
        self.changed = False
        self.results: dict[int, Result | None] = {}
        self.counters: deque[int] = deque()
        """The keys of ``results`` in the order of execution, which is mostly theirs."""

    def keep(self, counter: int, result: Result | None) -> None:
        self.results[counter] = result
        self.counters.append(counter)

    def raise_mark(self, mark: int) -> None:
        self.mark = mark
        counters, results = self.counters, self.results
        while counters and counters[0] < mark:
            del results[counters.popleft()]

    def kept(self) -> list[tuple[int, Result | None]]:
        """What may still be asked for, by counter."""
        return sorted(((c, r) for c, r in self.results.items() if c >= self.mark), key=lambda pair: pair[0])


class Sessions:
    __slots__ = ("_due_ms", "by_id", "changed", "deleted", "next_number")

    def __init__(self) -> None:
        self.by_id: dict[int, SessionState] = {}
        self.next_number = 1
        self.changed = 0
        """How many sessions changed since the last checkpoint."""
        self.deleted: list[int] = []
        self._due_ms = 0
        """Not later than the first session's end; 0: no session."""

    def enter(self, session: Session, now_ms: int) -> SessionState:
        """The session as the operations of an entry find it."""
        state = self.by_id.get(session.id)
        if state is not None and state.last_ms + SESSION_IDLE_MS <= now_ms:
            self._forget(state)
            state = None
        if state is None:
            state = SessionState(session.id, 0)
        if session.answered_below > state.mark:
            state.raise_mark(session.answered_below)
            if state.known:
                self._change(state)
        return state

    def use(self, state: SessionState, now_ms: int) -> None:
        """The session executes an operation other than a Tick."""
        if not state.known:
            known = self.by_id.get(state.id)
            assert known is None, "an entry names a session once"
            state.known = True
            state.number = self.next_number
            self.next_number += 1
            self.by_id[state.id] = state
            if not self._due_ms:
                self._due_ms = now_ms + SESSION_IDLE_MS
        if state.last_ms != now_ms or not state.changed:
            state.last_ms = now_ms
            self._change(state)

    def end_idle(self, now_ms: int) -> None:
        if self._due_ms == 0 or self._due_ms > now_ms:
            return
        for state in [s for s in self.by_id.values() if s.last_ms + SESSION_IDLE_MS <= now_ms]:
            self._forget(state)
        self._due_ms = min((s.last_ms for s in self.by_id.values()), default=-SESSION_IDLE_MS) + SESSION_IDLE_MS

    def due_ms(self) -> int:
        """When a session may have been idle for long enough; 0: there is none. Never too late."""
        return self._due_ms if self.by_id else 0

    def changed_rows(self) -> int:
        return self.changed + len(self.deleted)

    def load(self, state: SessionState) -> None:
        state.known = True
        self.by_id[state.id] = state
        due_ms = state.last_ms + SESSION_IDLE_MS
        self._due_ms = min(self._due_ms, due_ms) if self._due_ms else due_ms

    def _change(self, state: SessionState) -> None:
        if not state.changed:
            state.changed = True
            self.changed += 1

    def _forget(self, state: SessionState) -> None:
        del self.by_id[state.id]
        state.known = False
        self.deleted.append(state.number)
        if state.changed:
            state.changed = False
            self.changed -= 1
