"""Messages between managers, one WebSocket per dialling manager, a list of messages per frame.

Model: the dialler asks, the listener answers under the asker's request number. Each manager dials every other.
"""

from __future__ import annotations

import enum

import msgspec

from distribution_manager.core.metadata import Owner
from shadow_nodes.protocol.commands import Command, Result, ShardKey, Summary, Value
from shadow_nodes.protocol.errors import ProtocolError


class Greeting(Value, frozen=True, tag=1):
    """First message of either side."""

    version: int
    cluster: str
    manager: str
    life: int
    region: str


class ManagerPing(Value, frozen=True, tag=2):
    sent_at: int


class ManagerPong(Value, frozen=True, tag=3):
    sent_at: int


class Forward(Value, frozen=True, tag=4):
    """Carry this operation out, under its id; answered by Reply with the same ``request``.

    ``command`` None asks for the Summary. ``deadline_ms``: Unix time after which nobody waits for it any more: it must
    not be sequenced then. ``wait_ms``: how long a receive may wait for messages. ``hops``: how often it may be
    passed on.
    """

    request: int
    shard: ShardKey
    session: int
    counter: int
    answered_below: int
    deadline_ms: int
    wait_ms: int
    hops: int
    region: str
    """Where the client's request came in: owners count whom they serve."""
    command: Command | None
    repeated: bool = False
    """An owner has had it before, and may have sequenced it."""
    left_ms: int = 0
    """How long it is waited for yet: managers' clocks may differ by more than that."""
    key: str = ""
    """The access key id that the client signed with; "" without one."""


class Verdict(enum.IntEnum):
    DONE = 0
    NOT_OWNER = 1
    """Not applied here: ask ``owner``, if that is newer (by epoch) than what the asker knew."""
    RETRY = 2
    """May or may not have been applied: repeat under the same id, here or elsewhere."""
    EXPIRED = 3
    """The deadline passed. May or may not have been applied."""
    GONE = 4
    """The queue does not exist."""


class Reply(Value, frozen=True, tag=5):
    request: int
    verdict: Verdict
    result: Result | None = None
    summary: Summary | None = None
    epoch: int = 0
    owner: Owner | None = None


class Handoff(Value, frozen=True, tag=6):
    """The sender owns the shard under this epoch and asks the receiver to take it. Not answered.

    ``clients``: how much the clients of each region use it, as the sender has counted: see demand.py.
    """

    shard: ShardKey
    epoch: int
    clients: dict[str, float] = {}


ManagerMessage = Greeting | ManagerPing | ManagerPong | Forward | Reply | Handoff

encode_manager_frame = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[ManagerMessage]).decode


def decode_manager_frame(frame: bytes) -> list[ManagerMessage]:
    """The messages of a frame from a manager to a manager. Raises ProtocolError."""
    try:
        return _decode(frame)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a frame between managers: {error}") from error
