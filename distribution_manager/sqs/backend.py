"""What the SQS layer asks of the rest of the manager; ``runtime`` gives it one, tests give it a fake."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.moves import MoveTask
from shadow_nodes.protocol.commands import Command, Result, Summary
from shadow_nodes.protocol.errors import RejectedError


class Unavailable(RejectedError):
    """No quorum, no owner or no etcd within the bound. Retryable; a send may or may not have happened."""


class QueueGone(RejectedError):
    """The queue does not exist (any more)."""


class ChangedMeanwhile(RejectedError):
    """An attribute is not what the change was made from; read it again."""


class NameTaken(RejectedError):
    """CreateQueue: the name exists with other attributes; ``args[0]`` says which attribute differs."""


class Executed(NamedTuple):
    """``session``, ``counter``: the operation's id; a standard send's message ids are made of it (see handles.py)."""

    session: int
    counter: int
    result: Result | None


class Backend(Protocol):
    """All methods raise Unavailable when an answer could not be had in time."""

    def find_queue(self, name: str) -> QueueMetadata | None:
        """From the cache that a watch keeps; a queue that this cluster has just created elsewhere may be missing."""

    async def look_up_queue(self, name: str) -> QueueMetadata | None:
        """Linearizably, from etcd; for a name that the cache lacks. Costs a round trip, so it is rate-limited."""

    def regions(self) -> list[str]:
        """Those with nodes, by name; none while this manager knows of no node."""

    def list_queues(self) -> list[QueueMetadata]:
        """Every queue, by name."""

    async def create_queue(
        self, name: str, attributes: dict[str, str], tags: dict[str, str], shadow_factor: int | None
    ) -> QueueMetadata:
        """Creates it, or returns the one there is where no given attribute differs. Raises NameTaken, Unavailable."""

    async def delete_queue(self, queue: QueueMetadata, *, key: str = "") -> None:
        """Seals it, then buries it. Raises QueueGone."""

    async def change_queue(
        self,
        queue: QueueMetadata,
        attributes: dict[str, str | None] | None = None,
        tags: dict[str, str | None] | None = None,
        provided: dict[str, str | None] | None = None,
        *,
        key: str = "",
    ) -> QueueMetadata:
        """Sets (a string) or takes away (None) attributes and tags; in force when it returns.

        ``provided``: attributes that must be (None: must not be) there as given, at the very moment of the change.
        Raises QueueGone, ChangedMeanwhile. A changed ShadowFactor is in force as a wish: replicas come and go later.
        """

    async def execute(self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0, key: str = "") -> Executed:
        """Carries out a command, exactly once however often it is repeated inside; see commands.py for the results.

        ``wait_ms`` lets a Receive wait for messages. ``key``: the access key id of who asks, for the log.
        Raises QueueGone, Unavailable.
        """

    async def summarize(self, queue: QueueMetadata) -> Summary:
        """The queue's counts, linearizably. Raises QueueGone, Unavailable."""

    async def start_move(self, queue: QueueMetadata, destination: str, rate: int) -> MoveTask:
        """Starts moving the queue's messages to ``destination``, a queue's name ("": each to where it came from).

        Raises MoveRunningError, QueueGone.
        """

    async def cancel_move(self, queue: QueueMetadata, task: str) -> MoveTask:
        """Asks the task to end; returns what it was before. Raises NoSuchMoveError."""

    async def list_moves(self, queue: QueueMetadata) -> tuple[MoveTask, ...]:
        """The queue's tasks, linearizably, the newest first."""
