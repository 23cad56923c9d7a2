"""The queue, written as plainly as possible: lists, searched from end to end. What the fast machine must agree with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from shadow_nodes.protocol.commands import (
    Accept,
    Batch,
    ChangeVisibility,
    Configure,
    Content,
    Delete,
    Entry,
    Items,
    Letter,
    Move,
    Moved,
    Purge,
    Receive,
    Received,
    Refusal,
    Refused,
    Send,
    Sent,
    Settings,
    Settle,
    Tick,
)

HOURS_12_MS = 12 * 3600 * 1000
MINUTES_5_MS = 5 * 60 * 1000
MINUTES_2_MS = 2 * 60 * 1000


@dataclass
class Held:
    key: int
    content: Content
    message_id: tuple[int, int, int]
    sent_ms: int
    source: str | None = None
    count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    until_ms: int = 0


@dataclass
class Reference:
    """``per_entry``: how many messages an entry may expire or post. ``in_flight_max``: of either kind of queue."""

    per_entry: int = 1000
    in_flight_max: int = 20_000
    now: int = 0
    settings: Settings = field(default_factory=Settings)
    sealed: bool = False
    next_key: int = 1
    held: list[Held] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    next_letter: int = 1
    accepted: dict[str, int] = field(default_factory=dict)
    duplicates: list[tuple[str, int, int, tuple[int, int, int]]] = field(default_factory=list)
    attempts: dict[str, Any] = field(default_factory=dict)
    sessions: dict[int, Any] = field(default_factory=dict)
    budget: int = 0

    def apply(self, entry: Entry) -> list[Any]:
        self.now = entry.now_ms
        self.budget = self.per_entry
        marks = {}
        for session in entry.sessions:
            known = self.sessions.get(session.id)
            if known and known["last"] + MINUTES_2_MS <= self.now:
                del self.sessions[session.id]
                known = None
            marks[session.id] = max(session.answered_below, known["mark"] if known else 0)
            if known:
                known["mark"] = marks[session.id]
        results = []
        for op in entry.operations:
            session_id = entry.sessions[op.session].id
            known = self.sessions.get(session_id)
            if op.counter < marks[session_id]:
                results.append(Refused(Refusal.SESSION_PASSED))
                continue
            if known and op.counter in known["results"]:
                results.append(known["results"][op.counter])
                continue
            if not isinstance(op.command, Tick):
                known = self.sessions.setdefault(session_id, {"results": {}, "mark": marks[session_id]})
                known["last"] = self.now
            result = self.execute(session_id, op.counter, op.command)
            if known:
                known["results"][op.counter] = result
            results.append(result)
        return results

    def execute(self, session: int, counter: int, command: Any) -> Any:
        if self.sealed and isinstance(command, Send | Receive | Delete | ChangeVisibility | Purge | Move):
            return Refused(Refusal.SEALED)
        return getattr(self, type(command).__name__.lower())(command, session, counter)

    # --- what is seen

    def visible(self) -> list[Held]:
        return [m for m in self.held if m.until_ms <= self.now]

    def in_flight(self) -> list[Held]:
        return [m for m in self.held if m.count and m.until_ms > self.now]

    def delayed(self) -> list[Held]:
        return [m for m in self.held if not m.count and m.until_ms > self.now]

    def next_ready_ms(self) -> int:
        return min((m.until_ms for m in self.held if m.until_ms > self.now), default=0)

    def group_runs(self) -> list[list[Held]]:
        """FIFO: of every open group the visible messages at its beginning; the groups by their first message."""
        runs = []
        for group in dict.fromkeys(m.content.group_id for m in self.held):
            members = [m for m in self.held if m.content.group_id == group]
            if any(m in self.in_flight() for m in members):
                continue
            if any(letter.content.group_id == group for letter in self.letters):
                continue
            run = []
            for m in members:
                if m.until_ms > self.now:
                    break
                run.append(m)
            if run:
                runs.append(run)
        return runs

    def runs(self) -> list[list[Held]]:
        return self.group_runs() if self.settings.fifo else [[m] for m in self.visible()]

    def expired(self, m: Held) -> bool:
        return m.sent_ms + self.settings.retention_ms <= self.now

    # --- commands

    def open(self, *_: Any) -> None:
        pass

    def configure(self, command: Configure, *_: Any) -> None:
        if command.settings.version > self.settings.version:
            self.settings = command.settings

    def add(self, content: Content, message_id: Any, sent_ms: int, source: str | None, delay_ms: int) -> int:
        until_ms = self.now + delay_ms if delay_ms > 0 else 0
        self.held.append(Held(self.next_key, content, message_id, sent_ms, source, until_ms=until_ms))
        self.next_key += 1
        return self.next_key - 1

    def send(self, command: Send, session: int, counter: int) -> Sent | None:
        outcomes: list[Any] = []
        for index, content in enumerate(command.messages):
            message_id = (session, counter, index)
            if not self.settings.fifo:
                delay_ms = self.settings.delay_ms if content.delay_ms is None else content.delay_ms
                self.add(content, message_id, self.now, None, delay_ms)
                continue
            if not content.group_id:
                outcomes.append(Refusal.GROUP_ID_MISSING)
                continue
            name = content.deduplication_id
            if not name and self.settings.content_based_deduplication:
                name = hashlib.sha256(content.body.encode()).hexdigest()
            if not name:
                outcomes.append(Refusal.DEDUPLICATION_ID_MISSING)
                continue
            scope = content.group_id if self.settings.deduplication_scope_group else None
            for known, since, key, first_id in self.duplicates:
                if known == (scope, name) and since + MINUTES_5_MS > self.now:
                    outcomes.append((key, first_id))
                    break
            else:
                key = self.add(content, message_id, self.now, None, self.settings.delay_ms)
                self.duplicates.append(((scope, name), self.now, key, message_id))
                outcomes.append((key, message_id))
        return Sent(outcomes) if self.settings.fifo else None

    def give(self, m: Held) -> Received:
        return Received(m.key, m.count, m.message_id, m.content, m.sent_ms, m.count, m.first_ms, m.source or "")

    def receive(self, command: Receive, *_: Any) -> Batch | Refused:
        timeout = command.visibility_timeout_ms
        until_ms = self.now + (self.settings.visibility_timeout_ms if timeout is None else timeout)
        if self.settings.fifo and command.attempt_id:
            again = self.repeat(command.attempt_id, until_ms)
            if again is not None:
                return Batch(again)
        room = self.in_flight_max - len(self.in_flight())
        if room <= 0 and not self.settings.fifo:
            return Refused(Refusal.OVER_LIMIT)
        taken = self.take(min(room, command.max_messages, 10), until_ms)
        if self.settings.fifo and command.attempt_id and taken and until_ms > self.now:
            handles = [(m.key, m.delivery) for m in taken]
            self.attempts[command.attempt_id] = {"since": self.now, "until": until_ms, "handles": handles}
        return Batch(taken)

    def take(self, wanted: int, until_ms: int) -> list[Received]:
        taken: list[Received] = []
        dead = self.settings.max_receive_count if self.settings.dead_letter_queue else 0
        for run in self.runs():
            for m in run:
                if len(taken) >= wanted:
                    return taken
                if self.expired(m) or 0 < dead <= m.count:
                    if not self.budget:
                        return taken
                    self.budget -= 1
                    self.held.remove(m)
                    if not self.expired(m):
                        self.post(m, self.settings.dead_letter_queue, "")
                        break
                    continue
                m.count += 1
                m.first_ms = m.first_ms or self.now
                m.last_ms = self.now
                m.until_ms = until_ms
                taken.append(self.give(m))
        return taken

    def repeat(self, attempt_id: str, until_ms: int) -> list[Received] | None:
        attempt = self.attempts.get(attempt_id)
        if not attempt or attempt["since"] + MINUTES_5_MS <= self.now or attempt["until"] <= self.now:
            return None
        found = [m for key, _ in attempt["handles"] for m in self.held if m.key == key]
        if [(m.key, m.count) for m in found] != attempt["handles"]:
            return None
        if any(m.until_ms != attempt["until"] or self.expired(m) for m in found):
            return None
        until_ms = max(until_ms, attempt["until"])
        for m in found:
            m.last_ms = self.now
            m.until_ms = until_ms
        attempt["until"] = until_ms
        return [self.give(m) for m in found]

    def post(self, m: Held, target: str, source: str) -> None:
        self.letters.append(Letter(self.next_letter, m.message_id, m.content, m.sent_ms, target, source))
        self.next_letter += 1

    def find(self, key: int) -> Held | None:
        return next((m for m in self.held if m.key == key), None)

    def delete(self, command: Delete, *_: Any) -> Items | None:
        outcomes: list[Refusal | None] = []
        for key, delivery in command.handles:
            m = self.find(key)
            outcomes.append(None)
            if m is None:
                continue
            current = m.count == delivery and m.until_ms > self.now
            if not 1 <= delivery <= m.count or (self.settings.fifo and not current):
                outcomes[-1] = Refusal.HANDLE_EXPIRED
            else:
                self.held.remove(m)
        return Items(outcomes) if any(outcomes) else None

    def changevisibility(self, command: ChangeVisibility, *_: Any) -> Items | None:
        outcomes: list[Refusal | None] = []
        for key, delivery, timeout_ms in command.changes:
            m = self.find(key)
            outcomes.append(None)
            if m is None or delivery < 1 or m.count != delivery:
                outcomes[-1] = Refusal.HANDLE_EXPIRED
            elif m.until_ms <= self.now:
                outcomes[-1] = Refusal.NOT_IN_FLIGHT
            elif self.now + timeout_ms > m.last_ms + HOURS_12_MS:
                outcomes[-1] = Refusal.VISIBILITY_TOO_LONG
            else:
                m.until_ms = self.now + timeout_ms
        return Items(outcomes) if any(outcomes) else None

    def purge(self, *_: Any) -> None:
        self.held.clear()

    def tick(self, *_: Any) -> None:
        late = [m for m in self.held if m.source is not None and self.expired(m)]
        for m in sorted(late, key=lambda m: (m.sent_ms, m.key)):
            if self.budget:
                self.budget -= 1
                self.held.remove(m)
        while self.held and self.expired(self.held[0]) and self.budget:
            self.budget -= 1
            del self.held[0]
        for session_id in [s for s, known in self.sessions.items() if known["last"] + MINUTES_2_MS <= self.now]:
            del self.sessions[session_id]

    def seal(self, *_: Any) -> None:
        self.sealed = True

    def accept(self, command: Accept, *_: Any) -> None:
        for letter in command.letters:
            if letter.number > self.accepted.get(command.source, 0):
                self.add(letter.content, letter.message_id, letter.sent_ms, letter.source, 0)
                self.accepted[command.source] = letter.number

    def settle(self, command: Settle, *_: Any) -> None:
        self.letters = [letter for letter in self.letters if letter.number > command.through]

    def move(self, command: Move, *_: Any) -> Moved:
        count = 0
        ended = True
        for run in self.runs():
            for m in run:
                if count >= command.max_messages or not self.budget:
                    ended = False
                    break
                self.budget -= 1
                target = command.target or m.source
                if self.expired(m):
                    self.held.remove(m)
                elif target:
                    self.held.remove(m)
                    self.post(m, target, m.source or "")
                    count += 1
                else:
                    break
        if count >= command.max_messages or not self.budget:
            ended = False
        if ended and not (self.settings.fifo and (self.letters or self.in_flight())):
            return Moved(count, 0)
        return Moved(count, len(self.visible()))
