"""What the cluster knows, as stored in etcd: one prefix per cluster, one JSON value per key, readable by people.

    queues/<name>          -> queue id, 16 hex digits
    meta/<queue id>        -> QueueMetadata
    shards/<queue id>/<n>  -> ShardRecord: the lock (owner, epoch, attempt) and the ShadowQueueList in one key
    graves/<queue id>      -> Grave: the tombstone of a deleted queue
    managers/<id>          -> ManagerRecord, under a lease
    nodes/<id>             -> NodeRecord
    latency/<manager>      -> LatencyRecord, under a lease
    keys/<access key id>   -> AccessKeyRecord
    moves/<queue id>       -> MoveTasks (moves.py)
    drains/node/<id>, drains/region/<name> -> Drain
    promotions/<n>         -> Permit, under a lease (permits.py)

Lock and replica set share a key on purpose: whoever changes one compares the mod_revision of both, so that no
transaction can pair a fresh lock with a stale set.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import Token

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of stored records: JSON objects; unknown fields are ignored, so that versions may differ while upgrading."""


class Replica(Record, frozen=True, gc=False):
    """A node and the incarnation of its store."""

    node: str
    incarnation: str


class Owner(Record, frozen=True, gc=False):
    """A manager's process: ``life`` is its random number, another after every start."""

    manager: str
    life: int


class ShardRecord(Record, frozen=True, gc=False):
    """The shard's lock and its ShadowQueueList.

    ``replicas``: the replica set, ``primary`` (a node) among them; the others are the shadows. ``version`` rises with
    every change of the set. ``epoch`` rises with every taking of the lock, by one, and never goes back.
    ``promoted_ms`` (Unix time) and ``promoted_for`` (causes.py): the last change of the primary; 0 and "" before any.
    ``learner``: a node that copies the shard, to join the set; "": none does. ``outside``: every node not in the set
    that may hold something of the shard: the learner, and former replicas and learners, if only their tombstones.
    """

    epoch: int = 0
    attempt: int = 0
    owner: Owner | None = None
    primary: str = ""
    replicas: tuple[Replica, ...] = ()
    version: int = 1
    promoted_ms: int = 0
    promoted_for: str = ""
    learner: str = ""
    outside: tuple[str, ...] = ()

    @property
    def token(self) -> Token:
        return Token(self.epoch, self.attempt)

    @property
    def shadows(self) -> list[str]:
        return [replica.node for replica in self.replicas if replica.node != self.primary]


class QueueMetadata(Record, frozen=True):
    """``attributes``: as SetQueueAttributes takes them, the set ones only. ``version`` rises with every change."""

    queue_id: str
    name: str
    attributes: dict[str, str] = {}
    tags: dict[str, str] = {}
    created_ms: int = 0
    modified_ms: int = 0
    version: int = 1
    shadow_factor: int = 2
    shards: int = 1

    @property
    def fifo(self) -> bool:
        return self.name.endswith(".fifo")

    def shard(self, number: int = 0) -> ShardKey:
        """As ``shard_key`` makes it: the id is 16 hexadecimal digits already."""
        return f"{self.queue_id}/{number}"


class Grave(Record, frozen=True):
    """``replicas``: the nodes that still have something to erase."""

    name: str
    deleted_ms: int
    shards: int = 1
    replicas: tuple[str, ...] = ()


class ManagerRecord(Record, frozen=True):
    """``address``: host:port of the link listener. ``endpoint``: the URL of the client listener."""

    manager: str
    life: int
    region: str
    address: str
    endpoint: str
    pid: int = 0
    version: str = ""


class NodeRecord(Record, frozen=True):
    """``address``: host:port. Not under a lease: an address is needed most when its node has long not been seen."""

    node: str
    region: str
    address: str
    incarnation: str
    pid: int = 0


class Way(Record, frozen=True, gc=False):
    """From a manager to one of its peers and back, as measured (liveness.RoundTrip): milliseconds; ``loss`` 0 to 1."""

    region: str
    round_trip_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0


class LatencyRecord(Record, frozen=True):
    """What a manager measures on its links, by the peers' names. ``measured_ms``: its Unix time when it said so."""

    manager: str
    region: str
    measured_ms: int
    nodes: dict[str, Way] = {}
    managers: dict[str, Way] = {}


class Drain(Record, frozen=True):
    """No primary and no owner is to be on the node, or in the region, that the key names."""

    since_ms: int = 0


class Permit(Record, frozen=True):
    """A manager's process moves a shard's primary: there are only so many permits in the cluster."""

    manager: str
    life: int
    shard: ShardKey


class Grant(Record, frozen=True):
    """Allows ``actions`` on queues whose names match ``queues``; ``*`` and ``?`` stand for what they do in IAM."""

    actions: tuple[str, ...] = ("*",)
    queues: tuple[str, ...] = ("*",)


class AccessKeyRecord(Record, frozen=True):
    """An access key. Its secret is in ``secret``, or, encrypted, in ``sealed``, never in both.

    ``user``: the last part of the principal's ARN. ``account``: "" means the managers' own. The limits hold for each
    manager; 0 means the manager's default.
    """

    access_key_id: str
    user: str
    secret: str = ""
    sealed: str = ""
    account: str = ""
    grants: tuple[Grant, ...] = (Grant(),)
    requests_per_second: int = 0
    connections_max: int = 0
    created_ms: int = 0

    def __repr__(self) -> str:
        return f"AccessKeyRecord({self.access_key_id!r}, user={self.user!r})"


def queue_key(name: str) -> str:
    return f"queues/{name}"


def meta_key(queue_id: str) -> str:
    return f"meta/{queue_id}"


def record_key(shard: ShardKey) -> str:
    return f"shards/{shard}"


def grave_key(queue_id: str) -> str:
    return f"graves/{queue_id}"


def manager_key(manager: str) -> str:
    return f"managers/{manager}"


def node_key(node: str) -> str:
    return f"nodes/{node}"


def latency_key(manager: str) -> str:
    return f"latency/{manager}"


def node_drain_key(node: str) -> str:
    return f"drains/node/{node}"


def region_drain_key(region: str) -> str:
    return f"drains/region/{region}"


def permit_key(number: int) -> str:
    return f"promotions/{number}"


def access_key_key(access_key_id: str) -> str:
    return f"keys/{access_key_id}"


encode_record = msgspec.json.Encoder(order="deterministic").encode


def decode_record(kind: type[T], key: str, value: bytes) -> T:
    """Raises CorruptError, naming the key."""
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.MsgspecError as error:
        raise CorruptError(f"etcd key {key} does not hold a {kind.__name__}: {error}") from error
