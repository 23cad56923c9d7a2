"""An operation on its way through a manager, and the clock and surroundings that the core is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from distribution_manager.core.clocks import View
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.core.transactions import Outcome, Transaction
from shadow_nodes.protocol.commands import Command, Letter, Receive, Result, ShardKey, Summary
from shadow_nodes.protocol.messages import ToNode

if TYPE_CHECKING:
    from distribution_manager.core.healing import Step


class Now(msgspec.Struct, frozen=True, gc=False):
    """``monotonic_ms`` orders and measures; ``clock_ms`` is Unix time."""

    monotonic_ms: int
    clock_ms: int


class Request:
    """One operation (``command``) or question for counts (``command`` None), under its id, until it is finished.

    ``finish`` is called exactly once, with a verdict and, where that is DONE, the result or the summary.
    """

    __slots__ = (
        "answered_below",
        "arrived_ms",
        "command",
        "counter",
        "deadline_ms",
        "expires_ms",
        "finish",
        "finished",
        "forwarded",
        "hops",
        "key",
        "region",
        "repeated",
        "session",
        "shard",
        "size_bytes",
        "wait_until_ms",
    )

    def __init__(
        self,
        shard: ShardKey,
        session: int,
        counter: int,
        answered_below: int,
        command: Command | None,
        *,
        now: Now,
        deadline_ms: int,
        wait_ms: int,
        hops: int,
        region: str,
        repeated: bool = False,
        left_ms: int | None = None,
        key: str = "",
        finish: Callable[[Request, Verdict, Result | None, Summary | None], None],
    ) -> None:
        self.shard = shard
        self.session = session
        self.counter = counter
        self.answered_below = answered_below
        self.command = command
        self.deadline_ms = deadline_ms
        """Unix time after which it is not to be sequenced; by the clock of whoever took it from the client."""
        self.arrived_ms = now.monotonic_ms
        self.expires_ms = now.monotonic_ms + max(0, deadline_ms - now.clock_ms if left_ms is None else left_ms)
        """The deadline on this process's monotonic clock; ``left_ms`` says how far off, whatever the clocks say."""
        self.wait_until_ms = now.monotonic_ms + wait_ms
        self.hops = hops
        self.region = region
        self.key = key
        """The access key id that the client signed with; "" without one."""
        self.finish = finish
        self.finished = False
        self.forwarded = 0
        """The number it was forwarded under; 0 while it is not."""
        self.repeated = repeated
        """It was with an owner before, who may have sequenced it: then it has a result, which only the log can tell."""
        self.size_bytes = 0

    @property
    def is_first_attempt(self) -> bool:
        """A receive with an attempt id that does not wait: it may get messages in flight, so it is not for the desk."""
        command = self.command
        return isinstance(command, Receive) and command.attempt_id != "" and self.wait_until_ms <= self.arrived_ms


class Surroundings(Protocol):
    """What a shard's owner asks of the manager around it."""

    now: Now

    def send(self, node: str, message: ToNode) -> None:
        """Nothing happens where the node is not linked."""

    def linked(self, node: str) -> bool: ...

    def incarnation(self, node: str) -> str | None:
        """Of the store of a linked node."""

    def address(self, node: str) -> str | None: ...

    def distance_ms(self, node: str) -> float:
        """Smoothed round-trip time; infinite where unknown."""

    def clock_view(self, node: str, clock_ms: int, asked_ms: int) -> View:
        """A node that was asked at ``asked_ms``, monotonic, has just said that it is ``clock_ms`` by its clock."""

    def clock_views(self) -> dict[str, View]:
        """The clocks of all linked nodes."""

    def patience_ms(self, node: str, base_ms: int) -> int:
        """How long to wait for a node's answer: ``base_ms`` and a few of its round trips."""

    def grows(self, record: ShardRecord) -> bool:
        """Whether enough of the shard's nodes have room on their disks for it to grow."""

    def next_step(
        self, shard: ShardKey, record: ShardRecord, well: frozenset[str], retiring: frozenset[str]
    ) -> Step | None:
        """What to do about the replica set: see healing.py."""

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        """``done`` gets the outcome; None where it is unknown or coordination is out of reach."""

    def wake(self, shard: ShardKey, at_ms: int) -> None:
        """The owner's ``due`` is called at this monotonic time, or a little later."""

    def flush_soon(self, shard: ShardKey) -> None:
        """The owner's ``flush`` is called at the end of this turn."""

    def confirm_soon(self, shard: ShardKey) -> None:
        """The shard takes part in the next confirmation round."""

    def serving(self, shard: ShardKey) -> None:
        """The owner has begun to serve."""

    def succession(self, shard: ShardKey, node: str, cause: str) -> tuple[str, str] | None:
        """The shard should have another primary, for a cause; ``node``, which is asked for results, could be it.

        Returns who is to be it now, and why; None where the shard is on its way already.
        """

    def record_changed(self, shard: ShardKey, record: ShardRecord) -> None:
        """The owner has changed its shard's record."""

    def unusable(self, shard: ShardKey, node: str) -> None:
        """The node's replica of this shard takes part in nothing any more."""

    def put_back(self, shard: ShardKey) -> None:
        """It was found that etcd has an older record than the owner, or the replicas, know of: that is put back."""

    def lost(self, shard: ShardKey) -> None:
        """The owner has lost its shard: let go of it before the turn ends."""

    def carry(self, shard: ShardKey, letters: list[Letter]) -> None:
        """Take these dead letters to their queues; the owner's ``letters_carried`` is called with how far that got."""

    def committed(self, operations: int, wait_ms: int) -> None:
        """An entry is committed: for metrics."""

    def random_bits(self) -> int:
        """SESSION_BITS random bits."""

    def record(self, shard: ShardKey) -> tuple[ShardRecord, int] | None:
        """The shard's record as etcd has last said, and its mod_revision."""

    def metadata(self, shard: ShardKey) -> QueueMetadata | None: ...
