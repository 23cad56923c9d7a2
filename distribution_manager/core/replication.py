"""An owner's log on its way to the replicas: the window, the followers, the quorum.

Model: ``window`` holds the entries after ``base``; each follower has ``matched`` (it holds our log up to there, on
disk) and ``next_seq`` (what to send it next). A node is a follower; whether its vote counts, ``voter_sets`` say.
Invariant: ``commit_seq`` moves only to an entry of this epoch that a quorum of every voter set holds; what it passes is
committed for ever. Sources: Ongaro & Ousterhout 2014, sections 5.3, 5.4.2 and 6 (joint sets).
"""

from __future__ import annotations

import enum
from collections import deque

import msgspec

from distribution_manager.core.limits import LEARN_RETRY_MS, TAKEOVER_RETRY_MS, WINDOW_BYTES_MAX
from distribution_manager.core.metadata import Replica
from distribution_manager.core.request import Surroundings
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.limits import APPEND_BYTES_MAX, MIB
from shadow_nodes.protocol.messages import Append, Appended, Fence, Fenced, Gap, Learn, Position, Token

AWAY_WINDOW_BYTES_MAX = 2 * MIB
"""Kept for a replica that is out of reach; coming back from further behind, it copies from another."""
LEARNING_WINDOW_BYTES_MAX = 8 * MIB
"""Kept for a replica that copies: it hears of the last entries later than they are committed, and has to meet us."""


class FollowerState(enum.Enum):
    AWAY = "away"
    """Not linked, or linked and not fenced yet."""
    PROBING = "probing"
    """Told one append; the next goes when it has answered."""
    STREAMING = "streaming"
    LEARNING = "learning"
    """Copying from another node what the window no longer has."""


_KEPT_BYTES_MAX = {FollowerState.AWAY: AWAY_WINDOW_BYTES_MAX, FollowerState.LEARNING: LEARNING_WINDOW_BYTES_MAX}


class WindowEntry(msgspec.Struct, frozen=True, gc=False):
    position: Position
    data: bytes


class Follower:
    __slots__ = ("asked_ms", "incarnation", "matched", "next_seq", "node", "source", "state", "told_commit")

    def __init__(self, node: str) -> None:
        self.node = node
        self.incarnation = ""
        self.state = FollowerState.AWAY
        self.matched = 0
        self.next_seq = 1
        self.told_commit = 0
        self.asked_ms = 0
        """When a probe, a fence or a Learn was last sent: said again where nothing comes."""
        self.source = ("", 0)
        """The node that it was told to copy from last, and ``matched`` at that time."""


def quorum(size: int) -> int:
    """Of a set of this size: any two quorums share a member."""
    return size // 2 + 1


class Replication:
    def __init__(
        self, shard: ShardKey, token: Token, around: Surroundings, base: Position, entries: list[WindowEntry]
    ) -> None:
        """``entries`` follow ``base``: the chosen log's tail. Nothing is committed until an entry of this epoch is."""
        self.shard = shard
        self.token = token
        self.base = base
        self.commit_seq = 0
        self.followers: dict[str, Follower] = {}
        self.voter_sets: list[tuple[Replica, ...]] = []
        self.acting = ""
        """The node that is asked for results."""
        self.window: deque[WindowEntry] = deque(entries)
        self.window_bytes = sum(len(item.data) for item in entries)
        self.last = entries[-1].position if entries else base
        self._around = around

    # --- the log ---------------------------------------------------------------------------------------------------

    def append(self, data: bytes) -> int:
        """Adds the next entry, of this epoch. Returns its seq."""
        self.last = Position(self.token.epoch, self.last.seq + 1)
        self.window.append(WindowEntry(self.last, data))
        self.window_bytes += len(data)
        return self.last.seq

    @property
    def known_committed(self) -> int:
        """What replicas may be told is committed. Where the window begins was committed before this epoch did: the
        replica that knew it may be gone since, and the others teach no more than they know to be committed."""
        return max(self.commit_seq, self.base.seq)

    def position_at(self, seq: int) -> Position | None:
        """None where the window does not reach."""
        if seq == self.last.seq:
            return self.last
        if seq == self.base.seq:
            return self.base
        index = seq - self.base.seq - 1
        return self.window[index].position if 0 <= index < len(self.window) else None

    def _trim(self) -> None:
        needed, bytes_max = self.commit_seq, WINDOW_BYTES_MAX
        for follower in self.followers.values():
            needed = min(needed, follower.matched)
            bytes_max = min(bytes_max, _KEPT_BYTES_MAX.get(follower.state, WINDOW_BYTES_MAX))
        window = self.window
        while window and window[0].position.seq <= self.commit_seq:
            if window[0].position.seq > needed and self.window_bytes <= bytes_max:
                break
            entry = window.popleft()
            self.window_bytes -= len(entry.data)
            self.base = entry.position

    # --- followers -------------------------------------------------------------------------------------------------

    def follow(self, node: str) -> Follower:
        """Makes a node a follower, and fences it where it is linked."""
        follower = self.followers.get(node)
        if follower is None:
            follower = self.followers[node] = Follower(node)
            self.link_up(node)
        return follower

    def unfollow(self, node: str) -> None:
        self.followers.pop(node, None)

    def link_up(self, node: str) -> None:
        """What it holds now is not known: it is asked, by the same Fence as ever."""
        follower = self.followers.get(node)
        if follower is not None and self._around.linked(node):
            follower.state = FollowerState.AWAY
            follower.asked_ms = self._around.now.monotonic_ms
            self._around.send(node, Fence(self.shard, self.token))

    def link_down(self, node: str) -> None:
        follower = self.followers.get(node)
        if follower is not None:
            follower.state = FollowerState.AWAY

    def postpone(self, node: str) -> None:
        """It can take nothing now, though its link is up: it is fenced again after a while, as by ``retry``."""
        follower = self.followers.get(node)
        if follower is not None:
            follower.state = FollowerState.AWAY
            follower.asked_ms = self._around.now.monotonic_ms

    def has_forgotten(self, node: str, message: Fenced) -> bool:
        """A store keeps what it has said it holds. One that does not was told to erase the shard, which is deleted."""
        follower = self.followers.get(node)
        same_store = follower is not None and follower.incarnation == message.incarnation
        return same_store and follower is not None and message.last.seq < follower.matched

    def fenced(self, node: str, message: Fenced) -> bool:
        """A follower has promised our token and says what it holds. Returns whether that committed anything."""
        follower = self.followers.get(node)
        if follower is None:
            return False
        if follower.incarnation != message.incarnation:
            follower.incarnation = message.incarnation
            follower.matched = 0
        same = self.position_at(message.last.seq)
        follower.matched = message.last.seq if same == message.last else message.committed.seq
        follower.told_commit = 0
        self._go_on_from(follower, follower.matched)
        return self.advance()

    def gap(self, node: str, message: Gap) -> None:
        """It lacks what we supposed; appends that were under way then say so too, and are not answered again."""
        follower = self.followers.get(node)
        if follower is None or follower.state is not FollowerState.STREAMING:
            return
        self._go_on_from(follower, message.committed.seq)

    def refused(self, node: str) -> None:
        """It did not take what it was sent, and will say nothing more of that: it is asked again after a while."""
        follower = self.followers.get(node)
        if follower is not None and follower.state is FollowerState.STREAMING:
            follower.state = FollowerState.PROBING
            follower.asked_ms = self._around.now.monotonic_ms

    def _go_on_from(self, follower: Follower, seq: int) -> None:
        follower.next_seq = seq + 1
        follower.asked_ms = self._around.now.monotonic_ms
        if self.position_at(seq) is None:
            self._teach(follower)
            return
        if seq == self.last.seq:
            follower.state = FollowerState.STREAMING
            return
        follower.state = FollowerState.PROBING
        self._send_entries(follower)

    def _teach(self, follower: Follower) -> None:
        """From whoever has most; another where nothing has come of that, as it may be out of the follower's reach."""
        named, matched = follower.source
        fruitless = named if matched == follower.matched else ""
        source = max(
            (other for other in self.followers.values() if other is not follower and self._usable(other)),
            key=lambda other: (other.node != fruitless, other.matched, -self._around.distance_ms(other.node)),
            default=None,
        )
        follower.source = (source.node if source is not None else "", follower.matched)
        address = source and self._around.address(source.node)
        follower.state = FollowerState.LEARNING
        if address and source is not None:
            self.tell_commit(source.node)  # it gives away no more than it knows to be committed
            self._around.send(follower.node, Learn(self.shard, self.token, address))

    def _usable(self, follower: Follower) -> bool:
        return follower.state in {FollowerState.STREAMING, FollowerState.PROBING} and follower.matched >= self.base.seq

    def appended(self, node: str, message: Appended) -> bool:
        """A follower holds our log up to there. Returns whether that committed anything."""
        follower = self.followers.get(node)
        if follower is None or follower.state is FollowerState.AWAY:
            return False
        follower.matched = max(follower.matched, message.seq)
        if follower.state is not FollowerState.STREAMING:
            follower.next_seq = follower.matched + 1
            if self.position_at(follower.matched) is None:
                follower.asked_ms = self._around.now.monotonic_ms
                self._teach(follower)
                return False
            follower.state = FollowerState.STREAMING
        return self.advance()

    def advance(self) -> bool:
        """Commits what quorums hold by now. Returns whether that was anything."""
        seq = min((self._held_by_quorum(voters) for voters in self.voter_sets), default=0)
        if seq <= self.commit_seq:
            return False
        position = self.position_at(seq)
        if position is None or position.epoch != self.token.epoch:
            return False
        self.commit_seq = seq
        self._trim()
        return True

    def _held_by_quorum(self, voters: tuple[Replica, ...]) -> int:
        held = sorted([self._matched(replica) for replica in voters])
        return held[len(held) - quorum(len(held))]

    def holds(self, voters: tuple[Replica, ...]) -> bool:
        """Whether a quorum of this set holds everything committed, so that it may come into force."""
        return self._held_by_quorum(voters) >= self.commit_seq

    def _matched(self, replica: Replica) -> int:
        follower = self.followers.get(replica.node)
        return follower.matched if follower is not None and follower.incarnation == replica.incarnation else 0

    def set_voters(self, *voter_sets: tuple[Replica, ...]) -> None:
        """From now on a commit needs a quorum of each of these sets: see whether ``advance`` has more to commit."""
        self.voter_sets = list(voter_sets)
        for voters in voter_sets:
            for replica in voters:
                self.follow(replica.node)

    # --- sending ---------------------------------------------------------------------------------------------------

    def stream(self) -> None:
        """Sends every follower that keeps up what it has not been sent."""
        for follower in self.followers.values():
            if follower.state is FollowerState.STREAMING and follower.next_seq <= self.last.seq:
                self._send_entries(follower)

    def _send_entries(self, follower: Follower) -> None:
        while follower.next_seq <= self.last.seq:
            previous = self.position_at(follower.next_seq - 1)
            if previous is None:
                self._teach(follower)
                return
            entries = self._entries_from(follower.next_seq)
            self._send_append(follower, previous, entries)
            follower.next_seq += len(entries)
            if follower.state is FollowerState.PROBING:
                return

    def _entries_from(self, seq: int) -> list[bytes]:
        count = self.last.seq - seq + 1
        if count == 1:
            return [self.window[-1].data]
        entries: list[bytes] = []
        size_bytes = 0
        for place in range(-count, 0):  # a deque is quick at its ends, while an iterator would walk all of it
            item = self.window[place]
            size_bytes += len(item.data)
            if entries and size_bytes > APPEND_BYTES_MAX:
                break
            entries.append(item.data)
        return entries

    def _send_append(self, follower: Follower, previous: Position, entries: list[bytes]) -> None:
        acting = follower.node == self.acting
        follower.told_commit = self.known_committed
        self._around.send(
            follower.node, Append(self.shard, self.token, previous, entries, follower.told_commit, acting)
        )

    def tell_commit(self, node: str) -> None:
        """Tells a follower the commit_seq if it does not know it."""
        follower = self.followers.get(node)
        if follower is None or follower.state is not FollowerState.STREAMING:
            return
        if follower.told_commit >= self.known_committed:
            return
        previous = self.position_at(min(follower.next_seq - 1, self.last.seq))
        if previous is not None:
            self._send_append(follower, previous, [])

    def tell_commit_to_all(self) -> None:
        for node in self.followers:
            self.tell_commit(node)

    @property
    def commit_untold(self) -> bool:
        known = self.known_committed
        for follower in self.followers.values():  # a loop: this is asked at every flush
            if follower.told_commit < known and follower.state is FollowerState.STREAMING:
                return True
        return False

    def retry(self) -> bool:
        """Says again what was not answered in time. Returns whether anything is still open."""
        now_ms = self._around.now.monotonic_ms
        still_open = False
        for follower in self.followers.values():
            state = follower.state
            if state is FollowerState.STREAMING or not self._around.linked(follower.node):
                continue
            still_open = True
            bound_ms = LEARN_RETRY_MS if state is FollowerState.LEARNING else TAKEOVER_RETRY_MS
            if now_ms - follower.asked_ms >= self._around.patience_ms(follower.node, bound_ms):
                self.link_up(follower.node)
        return still_open

    # --- choosing --------------------------------------------------------------------------------------------------

    def keeps_up(self, node: str) -> bool:
        follower = self.followers.get(node)
        return follower is not None and follower.state is FollowerState.STREAMING

    @property
    def all_keep_up(self) -> bool:
        for follower in self.followers.values():  # noqa: SIM110 - a loop: this is asked at every flush
            if follower.state is not FollowerState.STREAMING:
                return False
        return True

    def current_voters(self) -> list[Follower]:
        """Voters of the newest set that are linked, fenced and hold everything that is committed, nearest first."""
        voters = {replica.node: replica.incarnation for replica in self.voter_sets[-1]}
        found = [
            follower
            for follower in self.followers.values()
            if follower.state is FollowerState.STREAMING
            and voters.get(follower.node) == follower.incarnation
            and follower.matched >= self.commit_seq
        ]
        return sorted(found, key=lambda follower: (self._around.distance_ms(follower.node), follower.node))
