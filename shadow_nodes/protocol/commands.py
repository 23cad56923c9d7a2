"""Commands, entries and results: what the operation log is made of.

Model: an ``Entry`` is one sequenced batch of ``Operation``s with everything in it that is not deterministic (its time).
Invariant: applying the same entries in the same order gives the same state and the same results on every replica.
Structs are msgpack arrays (positional); a field is only ever added at the end, with a default.
"""

from __future__ import annotations

import enum

import msgspec

ShardKey = str
"""``<queue id, 16 hex digits>/<shard number>``. A queue id is never used again, so neither is a key."""


def shard_key(queue_id: int, shard: int) -> ShardKey:
    """The key of a queue's shard, as every message, table and receipt handle carries it."""
    return f"{queue_id:016x}/{shard}"


class Value(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of immutable values without reference cycles; the collector need not look at them."""


# --- commands ------------------------------------------------------------------------------------------------------


class Settings(Value, frozen=True):
    """What the state machine needs of a queue's attributes. Times in milliseconds.

    ``version`` orders settings: a ``Configure`` with a version not above the current one changes nothing.
    ``max_receive_count`` 0 means no dead-lettering; ``dead_letter_queue`` is a queue's name.
    """

    version: int = 0
    fifo: bool = False
    visibility_timeout_ms: int = 30_000
    delay_ms: int = 0
    retention_ms: int = 345_600_000
    max_receive_count: int = 0
    dead_letter_queue: str = ""
    content_based_deduplication: bool = False
    deduplication_scope_group: bool = False
    """FIFO: deduplicate per message group instead of per queue."""


class Content(Value, frozen=True):
    """What a producer gave: immutable, kept once, returned by every receive.

    ``attributes`` are the user's message attributes as the manager encoded them; opaque to the state machine.
    ``delay_ms`` None takes the queue's delay (and on a FIFO queue always does).
    """

    body: str
    attributes: bytes = b""
    group_id: str = ""
    deduplication_id: str = ""
    sender_id: str = ""
    trace_header: str = ""
    delay_ms: int | None = None


class Letter(Value, frozen=True):
    """A message on its way to another queue. It keeps its id, its first-sent time and its content."""

    number: int
    """Its place in the source shard's outbox: consecutive from 1, never reused."""
    message_id: tuple[int, int, int]
    """(session, counter, index) of the send that made it."""
    content: Content
    sent_ms: int
    target: str
    """The name of the queue it goes to."""
    source: str = ""
    """The name of the queue it was dead-lettered from, for DeadLetterQueueSourceArn and for redrive."""


class ReplicaSet(Value, frozen=True):
    """A replica set that has been in force: what the shard's record in etcd has said, and must never say less than.

    ``version`` 0: none is known. ``members``: node and incarnation of the store. ``outside``: nodes that are no members
    and may hold something of the shard.
    """

    version: int = 0
    members: list[tuple[str, str]] = []
    outside: list[str] = []


NO_REPLICA_SET = ReplicaSet()


class Open(Value, frozen=True, tag=1):
    """The first entry of an epoch: once it is committed, so is everything before it.

    ``replica_set`` is remembered; the rest is for the log's readers: why the shard was taken, and its record as the
    owner found it.
    """

    owner: str
    cause: str = ""
    primary: str = ""
    replicas: list[str] = []
    """Nodes."""
    version: int = 0
    """Of the replica set."""
    replica_set: ReplicaSet = NO_REPLICA_SET


class Configure(Value, frozen=True, tag=2):
    settings: Settings


class Send(Value, frozen=True, tag=3):
    """One client call, at most BATCH_MESSAGES_MAX messages."""

    messages: list[Content]


class Receive(Value, frozen=True, tag=4):
    max_messages: int = 1
    visibility_timeout_ms: int | None = None
    """None takes the queue's."""
    attempt_id: str = ""
    """FIFO: ReceiveRequestAttemptId."""


class Delete(Value, frozen=True, tag=5):
    """``handles``: (message key, delivery number) of each. One client call."""

    handles: list[tuple[int, int]]


class ChangeVisibility(Value, frozen=True, tag=6):
    """``changes``: (message key, delivery number, new timeout in milliseconds from now) of each. One client call."""

    changes: list[tuple[int, int, int]]


class Purge(Value, frozen=True, tag=7):
    """Drops every message that was sent before, in flight ones too."""


class Tick(Value, frozen=True, tag=8):
    """Does what time alone asks for: retention; sessions and windows that ended. At most EXPIRE_PER_ENTRY_MAX items."""


class Seal(Value, frozen=True, tag=9):
    """The queue is being deleted: every later operation of a client is refused with SEALED."""


class Accept(Value, frozen=True, tag=10):
    """Takes letters over from another shard, once each: numbers not above the last taken from ``source`` are skipped.

    ``source`` is a shard key. Letters come in the order of their numbers; those between went to other queues.
    """

    source: ShardKey
    letters: list[Letter]


class Settle(Value, frozen=True, tag=11):
    """The target has committed every letter up to ``through``: drop them from the outbox, unblock their groups."""

    through: int


class Move(Value, frozen=True, tag=12):
    """Message move task: puts up to ``max_messages`` visible messages into the outbox.

    ``target`` "" sends each back to the queue it was dead-lettered from (those that came otherwise stay).
    """

    task: str
    max_messages: int
    target: str = ""


class Note(Value, frozen=True, tag=13):
    """The owner has changed the shard's record, from one primary and set of nodes to another.

    ``replica_set`` is remembered; the rest is for the log's readers.
    """

    cause: str
    primary_before: str
    primary: str
    replicas_before: list[str]
    replicas: list[str]
    version: int
    """Of the replica set, after the change."""
    replica_set: ReplicaSet = NO_REPLICA_SET


Command = (
    Open | Configure | Send | Receive | Delete | ChangeVisibility | Purge | Tick | Seal | Accept | Settle | Move | Note
)


class Operation(Value, frozen=True):
    """A command under the id that makes it happen once: (session, counter).

    ``session`` indexes the entry's ``sessions``; ``counter`` rises within a session, with gaps.
    """

    session: int
    counter: int
    command: Command
    caller: int = 0
    """The number of its Caller; 0: the owner itself. For the log's readers: the state machine does not look at it."""


class Session(Value, frozen=True):
    """A manager's life, as a shard sees it. ``answered_below``: results of smaller counters are asked for no more."""

    id: int
    answered_below: int


class Caller(Value, frozen=True):
    """Who asked: ``key`` is the access key id that was proved by signature ("" without one).

    ``region``: where the client's request came in. The number stands for both in this epoch: see
    CALLERS_REPEATED_ENTRIES.
    """

    number: int
    key: str
    region: str


class Entry(Value, frozen=True):
    """One sequenced batch. ``now_ms`` is Unix time in milliseconds, never going back within a shard."""

    epoch: int
    seq: int
    now_ms: int
    sessions: list[Session]
    operations: list[Operation]
    callers: list[Caller] = []


# --- results -------------------------------------------------------------------------------------------------------


class Refusal(enum.IntEnum):
    """Why the state machine did not do (a part of) what a command asked. The SQS layer gives each its SQS error."""

    SEALED = 1
    """The queue has been deleted."""
    OVER_LIMIT = 2
    """Too many messages in flight."""
    HANDLE_EXPIRED = 3
    """The handle is not the message's current one (FIFO delete, change of visibility), or the message is gone."""
    NOT_IN_FLIGHT = 4
    """Change of visibility: the message is visible again."""
    GROUP_ID_MISSING = 5
    DEDUPLICATION_ID_MISSING = 6
    VISIBILITY_TOO_LONG = 7
    """The change would keep the message invisible for more than VISIBILITY_TIMEOUT_MAX_MS since its receive."""
    SESSION_PASSED = 8
    """The operation is older than its session's mark: it was answered long ago, this is a stray copy."""
    NO_ROOM = 9
    """Given by the owner, not by the machine: too many replicas' disks are nearly full for the queue to grow."""


class Refused(Value, frozen=True, tag=20):
    """The whole command was refused and changed nothing."""

    refusal: Refusal


class Sent(Value, frozen=True, tag=21):
    """FIFO only (a standard queue's send is acknowledged at commit and has no result).

    ``messages``: per message its key, which is its sequence number, and the (session, counter, index) that its message
    id is made of (a duplicate's are the original's); or a Refusal.
    """

    messages: list[tuple[int, tuple[int, int, int]] | Refusal]


class Received(Value, frozen=True):
    key: int
    delivery: int
    message_id: tuple[int, int, int]
    content: Content
    sent_ms: int
    receive_count: int
    first_received_ms: int
    source: str = ""


class Batch(Value, frozen=True, tag=22):
    """A receive's messages, in order; may be empty."""

    messages: list[Received]


class Items(Value, frozen=True, tag=23):
    """Per item of a Delete or ChangeVisibility: None when done, or a Refusal."""

    outcomes: list[Refusal | None]


class Moved(Value, frozen=True, tag=24):
    """How many messages a Move put into the outbox; ``remaining``: how many visible ones are left."""

    count: int
    remaining: int


Result = Refused | Sent | Batch | Items | Moved
"""None stands for plain success: Open, Configure, Purge, Tick, Seal, Accept, Settle, Note, standard Send; a Delete or
ChangeVisibility all of whose items were done."""


class Summary(Value, frozen=True):
    """What an owner must know of a replica's applied state to let receives wait without writing anything.

    ``ready``: messages that a receive at the entry's time would find. ``next_ready_ms``: when a further one becomes
    visible by time alone (0: never). ``next_tick_ms``: when a Tick has work (0: never). ``outbox``: letters waiting.
    """

    seq: int
    ready: int
    in_flight: int
    delayed: int
    next_ready_ms: int
    next_tick_ms: int
    outbox: int
    settings_version: int
    sealed: bool
    held: int = 0
    """Messages held, the outbox not counted: ready, in flight, delayed, or behind one of their group (FIFO)."""


# --- codec ---------------------------------------------------------------------------------------------------------

encode = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode
"""Raises msgspec.ValidationError or msgspec.DecodeError on bytes that are not an entry."""
