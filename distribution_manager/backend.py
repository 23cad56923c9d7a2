"""The SQS layer's Backend: queues and operations, by way of the core and of etcd."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

import tenacity

from distribution_manager.coordination.interface import Coordination
from distribution_manager.core import moves, procedures
from distribution_manager.core.attributes import settings_of, wishes_of
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.moves import MoveTask
from distribution_manager.core.placement import NotEnoughRegionsError, placements
from distribution_manager.core.transactions import Outcome, Remove, Transaction
from distribution_manager.driver import Driver
from distribution_manager.sqs.backend import ChangedMeanwhile, Executed, NameTaken, QueueGone, Unavailable
from shadow_nodes.protocol.commands import Command, Configure, Seal, Summary
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError

T = TypeVar("T")
Procedure = Generator[Transaction, Outcome, T]

SHADOW_FACTOR = "ShadowFactor"
SHADOW_FACTOR_DEFAULT = 2
PROCEDURE_SECONDS_MAX = 8.0
"""How long a procedure is repeated while etcd is out of reach, before the client gets a retryable error."""
LOOK_UPS_PER_SECOND_MAX = 200
"""Names that the cache does not have are looked up in etcd at most this often; beyond, the cache is believed."""

_RETRIED = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type((OutcomeUnknownError, Unavailable)),
    stop=tenacity.stop_after_delay(PROCEDURE_SECONDS_MAX),
    wait=tenacity.wait_exponential_jitter(initial=0.05, max=1.0, jitter=0.05),
    reraise=True,
)


class CoreBackend:
    """Implements ``sqs.backend.Backend``."""

    def __init__(self, driver: Driver, coordination: Coordination) -> None:
        self._driver = driver
        self._core = driver.core
        self._coordination = coordination
        self._look_ups = 0
        self._look_up_second = 0

    # --- finding ---------------------------------------------------------------------------------------------------

    def find_queue(self, name: str) -> QueueMetadata | None:
        return self._core.directory.queue(name)

    def regions(self) -> list[str]:
        return sorted({node.region for node in self._core.directory.nodes.values()})

    def list_queues(self) -> list[QueueMetadata]:
        directory = self._core.directory
        found = (directory.queue(name) for name in sorted(directory.ids))
        return [queue for queue in found if queue is not None]

    async def look_up_queue(self, name: str) -> QueueMetadata | None:
        second = int(time.monotonic())
        if second != self._look_up_second:
            self._look_up_second, self._look_ups = second, 0
        self._look_ups += 1
        if self._look_ups > LOOK_UPS_PER_SECOND_MAX:
            return self.find_queue(name)
        return await self._run(lambda: procedures.look_up(name))

    # --- changing --------------------------------------------------------------------------------------------------

    async def create_queue(
        self, name: str, attributes: dict[str, str], tags: dict[str, str], shadow_factor: int | None
    ) -> QueueMetadata:
        now_ms = time.time_ns() // 1_000_000
        factor = SHADOW_FACTOR_DEFAULT if shadow_factor is None else shadow_factor
        wanted = QueueMetadata(
            queue_id=f"{self._driver.random_bits():016x}",
            name=name,
            attributes=attributes,
            tags=tags,
            created_ms=now_ms,
            modified_ms=now_ms,
            shadow_factor=factor,
        )
        try:
            best = placements(
                self._core.atlas.sites(),
                1 + factor,
                self._core.atlas,
                {self._core.region: 1.0},
                wishes=wishes_of(wanted),
            )[0]
        except NotEnoughRegionsError as error:
            raise Unavailable(str(error)) from error
        attempt = self._driver.random_bits()
        # an owner far from its primary would make a nearer replica that: see Results.successor
        owner = self._core.handoffs.first_owner(wanted.queue_id, best.sites[0].region) or self._core.me
        try:
            created = await self._run(
                lambda: procedures.create_queue(wanted, best.replicas, owner, attempt, shadow_factor)
            )
        except procedures.AttributesDifferError as error:
            raise NameTaken(*error.args) from error
        if created.record is not None and owner == self._core.me:
            self._core.granted(wanted.shard(), created.record.token)
        return created.metadata

    async def change_queue(
        self,
        queue: QueueMetadata,
        attributes: dict[str, str | None] | None = None,
        tags: dict[str, str | None] | None = None,
        provided: dict[str, str | None] | None = None,
        *,
        key: str = "",
    ) -> QueueMetadata:
        now_ms = time.time_ns() // 1_000_000
        changes = dict(attributes or {})
        factor = changes.pop(SHADOW_FACTOR, None)
        shadow_factor = None if factor is None else int(factor)
        try:
            after = await self._run(
                lambda: procedures.change_queue(
                    queue.queue_id, changes, tags or {}, shadow_factor, now_ms, provided=provided or {}
                )
            )
        except procedures.ChangedMeanwhileError as error:
            raise ChangedMeanwhile(*error.args) from error
        except procedures.NoSuchQueueError as error:
            raise QueueGone(*error.args) from error
        if attributes:
            await self.execute(after, Configure(settings_of(after)), key=key)
        return after

    async def delete_queue(self, queue: QueueMetadata, *, key: str = "") -> None:
        await self.execute(queue, Seal(), key=key)
        now_ms = time.time_ns() // 1_000_000
        attempts = 0

        def bury() -> Procedure[None]:
            nonlocal attempts
            attempts += 1
            return procedures.delete_queue(queue, now_ms)

        try:
            await self._run(bury)
        except procedures.NoSuchQueueError as error:
            if attempts == 1:
                raise QueueGone(*error.args) from error

    # --- message move tasks ------------------------------------------------------------------------------------------

    async def start_move(self, queue: QueueMetadata, destination: str, rate: int) -> MoveTask:
        summary = await self.summarize(queue)
        task = MoveTask(
            task=f"{self._driver.random_bits():016x}",
            destination=destination,
            rate=rate,
            started_ms=time.time_ns() // 1_000_000,
            to_move=summary.ready + summary.delayed,
        )
        await self._run(lambda: moves.start_move(queue.queue_id, task))
        return task

    async def cancel_move(self, queue: QueueMetadata, task: str) -> MoveTask:
        before = (await self._run(lambda: moves.read_moves(queue.queue_id))).find(task)
        if before is None:
            raise moves.NoSuchMoveError(task)
        if before.active:
            await self.change_move(queue, task, moves.cancelled)
        return before

    async def list_moves(self, queue: QueueMetadata) -> tuple[MoveTask, ...]:
        return (await self._run(lambda: moves.read_moves(queue.queue_id))).tasks

    async def change_move(self, queue: QueueMetadata, task: str, change: Callable[[MoveTask], MoveTask]) -> None:
        """Raises NoSuchMoveError, Unavailable."""
        await self._run(lambda: moves.change_move(queue.queue_id, task, change))

    async def forget_moves(self, queue_id: str) -> None:
        """The queue is gone. Raises Unavailable."""
        await self._transact(Transaction([], [Remove(moves.moves_key(queue_id))]))

    # --- operations ------------------------------------------------------------------------------------------------

    async def execute(self, queue: QueueMetadata, command: Command, *, wait_ms: int = 0, key: str = "") -> Executed:
        session, counter, verdict, result, _ = await self._driver.submit(queue.shard(), command, wait_ms, key)
        self._check(verdict, queue)
        return Executed(session, counter, result)

    async def summarize(self, queue: QueueMetadata) -> Summary:
        _, _, verdict, _, summary = await self._driver.submit(queue.shard(), None, 0)
        self._check(verdict, queue)
        assert summary is not None
        return summary

    def _check(self, verdict: Verdict, queue: QueueMetadata) -> None:
        if verdict is Verdict.GONE:
            raise QueueGone(queue.name)
        if verdict is not Verdict.DONE:
            raise Unavailable(f"no quorum of queue {queue.name} answered in time")

    async def _run(self, begin: Callable[[], Procedure[T]]) -> T:
        """Runs a procedure, and again from its beginning where an outcome is unknown. Raises Unavailable."""
        try:
            return await _RETRIED(self._run_once, begin)
        except OutcomeUnknownError as error:
            raise Unavailable("etcd did not answer in time") from error
        except (procedures.BusyError, moves.BusyError) as error:
            raise Unavailable(str(error)) from error

    async def _run_once(self, begin: Callable[[], Procedure[T]]) -> T:
        procedure = begin()
        try:
            transaction = next(procedure)
            while True:
                outcome = await self._transact(transaction)
                transaction = procedure.send(outcome)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _transact(self, transaction: Transaction) -> Outcome:
        try:
            outcome = await self._coordination.transact(transaction)
        except RejectedError as error:
            raise Unavailable(f"etcd: {error}") from error
        self._driver.enter()
        self._core.directory.outcome(outcome)
        return outcome
