"""Messages between a manager and a node, one WebSocket per pair, a list of messages per frame.

Model: the manager dials and says Hello, the node answers Welcome or closes. Every other message names its shard and the
token it is about, so that an answer can never be taken for one to an older question.
"""

from __future__ import annotations

import enum

import msgspec

from shadow_nodes.protocol.commands import (
    NO_REPLICA_SET,
    Letter,
    ReplicaSet,
    Result,
    ShardKey,
    Summary,
    Value,
)
from shadow_nodes.protocol.errors import ProtocolError


class Token(Value, frozen=True, order=True):
    """The fencing token: the epoch under which the shard's lock was taken, and the attempt's random number.

    Fence needs a greater epoch or the identical pair; Append needs the identical pair.
    """

    epoch: int
    attempt: int


NO_TOKEN = Token(0, 0)


class Position(Value, frozen=True, order=True):
    """A place in an operation log: the entry's epoch and seq. Logs that agree at a position agree before it."""

    epoch: int
    seq: int


LOG_START = Position(0, 0)

# --- manager to node -----------------------------------------------------------------------------------------------


class Hello(Value, frozen=True, tag=1):
    """First message on a link. ``life`` is the manager process's random number: a restart has another."""

    version: int
    cluster: str
    manager: str
    life: int
    region: str


class Ping(Value, frozen=True, tag=2):
    """Heartbeat. ``sent_at`` is the sender's own and comes back in the Pong."""

    sent_at: int


class Fence(Value, frozen=True, tag=3):
    """Promise me: accept nothing under an older token. Creates the replica where there is none."""

    shard: ShardKey
    token: Token


class Append(Value, frozen=True, tag=4):
    """``entries`` (encoded) follow ``previous``; everything up to ``commit_seq`` is committed.

    With ``want_results`` the node answers Applied for what this makes it apply: it is the acting primary.
    An Append without entries tells commit_seq.
    """

    shard: ShardKey
    token: Token
    previous: Position
    entries: list[bytes]
    commit_seq: int
    want_results: bool


class Ask(Value, frozen=True, tag=5):
    """What were the results of these operations, (session, counter) each, at your applied state? See Answered.

    ``letters_max``: how many letters of the outbox to send along.
    """

    shard: ShardKey
    token: Token
    operations: list[tuple[int, int]]
    letters_max: int = 0


class Confirm(Value, frozen=True, tag=6):
    """Are these tokens still the ones you promised? One round serves all that waits. Answered by Confirmed."""

    round: int
    shards: list[tuple[ShardKey, Token]]


class Fetch(Value, frozen=True, tag=7):
    """The owner reads a fenced replica's log, uncommitted tail included, to copy it to the others."""

    shard: ShardKey
    token: Token
    after_seq: int


class Learn(Value, frozen=True, tag=8):
    """You lack what I no longer hold: copy committed entries, or a snapshot and then entries, from ``source``."""

    shard: ShardKey
    token: Token
    source: str
    """The address of the node to copy from, ``host:port``."""


class Inspect(Value, frozen=True, tag=9):
    """For operators and tests: the states of these shards, or of all; with a digest where asked."""

    request: int
    shards: list[ShardKey] | None
    digest: bool = False


class Erase(Value, frozen=True, tag=10):
    """The queue's tombstone is in etcd: forget the shard, for good."""

    shard: ShardKey


class Retire(Value, frozen=True, tag=11):
    """You are not in the replica set (any more): promise me this token, as by Fence, and drop all else of the shard.

    What is left is a tombstone: it refuses older owners, whose set it may have been in. Answered by Retired, or Stale.
    """

    shard: ShardKey
    token: Token


ToNode = Hello | Ping | Fence | Append | Ask | Confirm | Fetch | Learn | Inspect | Erase | Retire

# --- node to manager -----------------------------------------------------------------------------------------------


class Load(Value, frozen=True):
    """A node's resources. Fractions are 0 to 1."""

    cpu: float = 0.0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    disk_free: float = 1.0
    shards: int = 0
    has_room: bool = True
    """False from when the disk is nearly full until it is well so no more: owners refuse what makes queues grow."""


class Welcome(Value, frozen=True, tag=40):
    """``incarnation`` is the store's random name: a new store has another, and has promised nothing."""

    version: int
    cluster: str
    node: str
    region: str
    incarnation: str
    clock_ms: int


class Pong(Value, frozen=True, tag=41):
    sent_at: int
    clock_ms: int
    load: Load


class Fenced(Value, frozen=True, tag=42):
    """``token`` is promised, durably. ``last``: its log's end; ``committed``: the end of what it knows committed.

    ``time_ms``: the time of its log's newest entry, by which no later entry may be earlier. ``retired``: this is the
    tombstone of a replica that has left its set: that its log is empty says nothing of what was committed.
    ``replica_set``: the newest that it knows, from what it has applied; see Takeover.
    """

    shard: ShardKey
    token: Token
    incarnation: str
    last: Position
    committed: Position
    clock_ms: int
    time_ms: int
    retired: bool = False
    replica_set: ReplicaSet = NO_REPLICA_SET


class Stale(Value, frozen=True, tag=43):
    """Refused: ``token`` is not the one promised, which is ``promised`` (NO_TOKEN: the shard is not known here)."""

    shard: ShardKey
    token: Token
    promised: Token


class Appended(Value, frozen=True, tag=44):
    """Everything up to ``seq`` is the owner's log, and on this node's disk."""

    shard: ShardKey
    token: Token
    seq: int


class Gap(Value, frozen=True, tag=45):
    """Refused: ``previous`` is not in the log. Go on from ``committed``, which always matches."""

    shard: ShardKey
    token: Token
    committed: Position


class ClockRefused(Value, frozen=True, tag=46):
    """Refused: an entry is stamped more than CLOCK_SKEW_MAX_MS ahead of this node's clock."""

    shard: ShardKey
    token: Token
    clock_ms: int


class Applied(Value, frozen=True, tag=47):
    """``results``: (seq, index of the operation in its entry, result) of each result other than None.

    They are those of the entries after ``after_seq`` up to ``seq``, which is the applied state that ``summary`` is of.
    Results of entries up to ``after_seq`` that have not been told are to be asked for.
    """

    shard: ShardKey
    token: Token
    after_seq: int
    seq: int
    results: list[tuple[int, int, Result]]
    summary: Summary


class AnswerState(enum.IntEnum):
    PENDING = 0
    """Not applied here (yet)."""
    DONE = 1


class Answered(Value, frozen=True, tag=48):
    """One state and result for each operation of the Ask, in its order. PENDING also where there was no room."""

    shard: ShardKey
    token: Token
    answers: list[tuple[int, int, AnswerState, Result | None]]
    summary: Summary
    letters: list[Letter] = []


class Confirmed(Value, frozen=True, tag=49):
    """Every token of the round holds, but those of ``refused``."""

    round: int
    refused: list[ShardKey]


class Log(Value, frozen=True, tag=50):
    """Answer to Fetch: encoded entries after ``after_seq``, in order, up to APPEND_BYTES_MAX.

    ``available`` is False where the log no longer reaches back to ``after_seq``.
    """

    shard: ShardKey
    token: Token
    after_seq: int
    entries: list[bytes]
    available: bool


class LinkState(enum.IntEnum):
    UP = 0
    CLOSED = 1
    SILENT = 2


class Sighting(Value, frozen=True):
    """How a node sees a manager's link."""

    manager: str
    life: int
    state: LinkState


class Sightings(Value, frozen=True, tag=51):
    """On connecting: every manager this node has seen since it started. Later: each change, at once."""

    sightings: list[Sighting]


class Inspection(Value, frozen=True):
    """``digest`` is of the state at ``applied_seq``; "" where not asked for."""

    shard: ShardKey
    promised: Token
    last: Position
    committed_seq: int
    applied_seq: int
    checkpoint_seq: int
    messages: int
    digest: str = ""
    quarantined: str = ""
    """Why the shard takes part in nothing any more; "" where it is well."""


class Inspected(Value, frozen=True, tag=52):
    request: int
    incarnation: str
    shards: list[Inspection]


class Quarantined(Value, frozen=True, tag=53):
    """This replica's state machine raised: it applies and answers nothing any more. ``reason`` is for people."""

    shard: ShardKey
    token: Token
    reason: str


class NoRoom(Value, frozen=True, tag=54):
    """Refused: this node's disk is full. Nothing has changed, what was promised stays; ask again later."""

    shard: ShardKey
    token: Token


class Retired(Value, frozen=True, tag=55):
    """``token`` is promised, durably, and nothing else is held of the shard."""

    shard: ShardKey
    token: Token


ToManager = (
    Welcome
    | Pong
    | Fenced
    | Stale
    | Appended
    | Gap
    | ClockRefused
    | Applied
    | Answered
    | Confirmed
    | Log
    | Sightings
    | Inspected
    | Quarantined
    | NoRoom
    | Retired
)

# --- frames --------------------------------------------------------------------------------------------------------

encode_frame = msgspec.msgpack.Encoder().encode
_decode_to_node = msgspec.msgpack.Decoder(list[ToNode]).decode
_decode_to_manager = msgspec.msgpack.Decoder(list[ToManager]).decode


def decode_to_node(frame: bytes) -> list[ToNode]:
    """The messages of a frame from a manager. Raises ProtocolError."""
    try:
        return _decode_to_node(frame)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a frame for a node: {error}") from error


def decode_to_manager(frame: bytes) -> list[ToManager]:
    """The messages of a frame from a node. Raises ProtocolError."""
    try:
        return _decode_to_manager(frame)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a frame for a manager: {error}") from error
