"""What operations share: the backend, who is calling, how queues are found, what refusals become."""

from __future__ import annotations

import time
from collections.abc import Callable

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import errors
from distribution_manager.sqs.backend import Backend, Executed, QueueGone
from distribution_manager.sqs.config import Caller, Gate, SqsConfig
from distribution_manager.sqs.errors import SqsError, invalid_parameter, missing_parameter, queue_does_not_exist
from distribution_manager.sqs.http.messages import Request
from distribution_manager.sqs.validation import is_queue_name
from shadow_nodes.protocol.commands import Command, Refusal, Refused

RECENT_MAX = 10_000
"""Names kept in each of the two memories below; beyond, the outdated go."""


class Recent:
    """Remembers when something was last done to a name, for as long as that matters."""

    def __init__(self, seconds: int) -> None:
        self._milliseconds = seconds * 1000
        self._when_ms: dict[str, int] = {}

    def note(self, name: str, now_ms: int) -> None:
        if not self._milliseconds:
            return
        if len(self._when_ms) >= RECENT_MAX:
            self._when_ms = {key: then for key, then in self._when_ms.items() if now_ms - then < self._milliseconds}
        self._when_ms[name] = now_ms

    def holds(self, name: str, now_ms: int) -> bool:
        then = self._when_ms.get(name)
        return then is not None and now_ms - then < self._milliseconds


class Service:
    """One per endpoint. ``now_ms`` is the wall clock, injected for tests."""

    def __init__(
        self, backend: Backend, config: SqsConfig, gate: Gate, now_ms: Callable[[], int] | None = None
    ) -> None:
        self.backend = backend
        self.config = config
        self.gate = gate
        self.now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self.purged = Recent(config.purge_interval_seconds)
        self.deleted = Recent(config.name_reuse_seconds)


class Call:
    """One request under way. ``query``: over the Query protocol."""

    __slots__ = ("backend", "caller", "operation", "query", "request", "service")

    def __init__(self, service: Service, request: Request, caller: Caller, operation: str, *, query: bool) -> None:
        self.service = service
        self.backend = service.backend
        self.request = request
        self.caller = caller
        self.operation = operation
        self.query = query

    async def queue(self, url: str | None) -> QueueMetadata:
        """The queue that a QueueUrl names, if the caller may do the operation on it. Raises SqsError."""
        if not url:
            raise missing_parameter("QueueUrl")
        name = url.rpartition("/")[2]
        return await self.queue_named(name, url)

    async def queue_named(self, name: str, address: str = "") -> QueueMetadata:
        """``address``: what the client called it by, for the error message. Raises SqsError."""
        queue = self.backend.find_queue(name)
        if queue is None:
            if not is_queue_name(name):
                raise SqsError(errors.INVALID_ADDRESS, f"The address {address or name} is not valid for this endpoint.")
            queue = await self.backend.look_up_queue(name)
        self.service.gate.permit(self.caller, self.operation, name, queue)
        if queue is None:
            raise queue_does_not_exist(query=self.query)
        return queue

    def permit(self, queue_name: str = "", queue: QueueMetadata | None = None) -> None:
        """For operations that do not look up a queue. Raises SqsError."""
        self.service.gate.permit(self.caller, self.operation, queue_name, queue)

    def permit_also(self, operation: str, queue_name: str, queue: QueueMetadata | None) -> None:
        """For operations that ask for the permission of others too. Raises SqsError."""
        self.service.gate.permit(self.caller, operation, queue_name, queue)

    def queue_url(self, name: str) -> str:
        config = self.service.config
        base = config.public_url
        if base is None:
            host = self.request.headers.get("host", "")
            base = f"{self.request.scheme}://{host if host.isascii() and host.isprintable() and host else 'localhost'}"
        return f"{base.rstrip('/')}/{config.account}/{name}"

    async def execute(
        self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0
    ) -> tuple[QueueMetadata, Executed]:
        """For commands without handles: where the cache still had a deleted namesake, its successor is asked instead.

        Returns the queue that answered. Raises SqsError, QueueGone, Unavailable.
        """
        try:
            executed = await self.backend.execute(queue, command, wait_ms=wait_ms, key=self.caller.key)
            check_refused(executed)
        except QueueGone:
            successor = await self.backend.look_up_queue(queue.name)
            if successor is None or successor.queue_id == queue.queue_id:
                raise
            queue = successor
            executed = await self.backend.execute(queue, command, wait_ms=wait_ms, key=self.caller.key)
            check_refused(executed)
        return queue, executed


def check_refused(executed: Executed) -> None:
    """Raises what a refusal of the whole command means to the client."""
    if type(executed.result) is Refused:
        raise refusal_error(executed.result.refusal)


def refusal_error(refusal: Refusal, handle: str = "") -> Exception:  # noqa: PLR0911 - a table
    """``handle``: the receipt handle that was refused, where there was one."""
    match refusal:
        case Refusal.SEALED:
            return QueueGone()
        case Refusal.OVER_LIMIT:
            return SqsError(errors.OVER_LIMIT, "Too many messages are in flight; delete some, or use more queues.")
        case Refusal.HANDLE_EXPIRED:
            return errors.invalid_value(handle, "ReceiptHandle", "The receipt handle has expired.")
        case Refusal.NOT_IN_FLIGHT:
            return SqsError(errors.MESSAGE_NOT_IN_FLIGHT, "The message referred to is not in flight.")
        case Refusal.GROUP_ID_MISSING:
            return missing_parameter("MessageGroupId")
        case Refusal.DEDUPLICATION_ID_MISSING:
            return invalid_parameter(DEDUPLICATION_ID_MISSING)
        case Refusal.VISIBILITY_TOO_LONG:
            return invalid_parameter("Total VisibilityTimeout for the message is beyond the limit [43200 seconds]")
        case Refusal.NO_ROOM:
            return SqsError(errors.SERVICE_UNAVAILABLE, NO_ROOM)
        case _:  # a stray copy of an operation that was answered long ago, or one between queues: never a client's
            return SqsError(errors.SERVICE_UNAVAILABLE, f"The operation was refused: {refusal.name}. Repeat it.")


NO_ROOM = (
    "The queue cannot grow now: the disks of too many of its replicas are nearly full. "
    "Receive and delete messages, or make room on the nodes' disks; then send again."
)
DEDUPLICATION_ID_MISSING = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)
