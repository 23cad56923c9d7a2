"""Between a client's call and a manager's core, as distribution_manager/backend.py is, without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distribution_manager.core import procedures
from distribution_manager.core.attributes import settings_of, wishes_of
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.placement import NotEnoughRegionsError, placements
from shadow_nodes.protocol.commands import Batch, Command, Configure, Refused, Result, Seal, Summary
from shadow_nodes.protocol.handles import SESSION_BITS
from tests.simulation.history import Op
from tests.simulation.manager_process import ManagerProcess

Answer = Callable[[str, Any], None]


class Backend:
    """For one call. ``wanted``: whether the client still waits."""

    def __init__(self, process: ManagerProcess, wanted: Callable[[], bool]) -> None:
        self.process = process
        self.core = process.live_core()
        self.world = process.world
        self.wanted = wanted

    def _find(self, name: str, answer: Answer, then: Callable[[QueueMetadata], None], queue_id: str = "") -> None:
        if queue_id:
            known = self.core.directory.queues.get(queue_id)
            if known is None:
                answer("refused", None)
            else:
                then(known)
            return
        found = self.core.directory.queue(name)
        if found is not None:
            then(found)
            return

        def looked_up(status: str, value: Any) -> None:
            if status != "ok" or value is None:
                answer("refused", None)
            else:
                then(value)

        self.process.run(lambda: procedures.look_up(name), looked_up)

    def execute(self, name: str, op: Op, command: Command, wait_ms: int, answer: Answer, *, queue_id: str = "") -> None:
        self._find(name, answer, lambda queue: self._submit(queue, op, command, wait_ms, answer), queue_id)

    def _submit(self, queue: QueueMetadata, op: Op, command: Command, wait_ms: int, answer: Answer) -> None:
        op.queue = queue.queue_id
        watch, shard = self.world.watch, queue.shard()
        # what expires is gone without a command
        ready = watch.ready(shard) if "MessageRetentionPeriod" not in queue.attributes else (0, 0)

        def done(session: int, counter: int, verdict: Verdict, result: Result | None, _s: Summary | None) -> None:
            if verdict is Verdict.GONE:
                answer("gone", None)
            elif verdict is not Verdict.DONE:
                answer("unknown", None)
            elif isinstance(result, Refused):
                answer("refused", result)
            else:
                if result == Batch([]):
                    watch.empty_answer(shard, ready)
                answer("ok", (session, counter, result))

        if self.core is not self.process.core:
            answer("unknown", None)  # it was started again meanwhile: what this call was with is gone
            return
        self.process.enter()
        self.core.submit(shard, command, wait_ms, done, self.wanted)

    # --- queues ----------------------------------------------------------------------------------------------------

    def create(self, queue: dict[str, Any], op: Op, answer: Answer) -> None:
        random = self.world.random
        wanted = QueueMetadata(
            queue_id=f"{random.getrandbits(SESSION_BITS):016x}",
            name=queue["name"],
            attributes=queue["attributes"],
            created_ms=self.process.clock_ms(),
            shadow_factor=queue["factor"],
        )
        core = self.core
        try:
            best = placements(
                core.atlas.sites(),
                1 + queue["factor"],
                core.atlas,
                {self.process.region: 1.0},
                wishes=wishes_of(wanted),
            )[0]
        except NotEnoughRegionsError:
            answer("refused", None)
            return
        attempt = random.getrandbits(SESSION_BITS)
        owner = core.handoffs.first_owner(wanted.queue_id, best.sites[0].region) or core.me

        def ended(status: str, value: Any) -> None:
            if status == "ok":
                op.queue = value.metadata.queue_id
                if value.record is not None and owner == core.me:
                    core.granted(wanted.shard(), value.record.token)
                answer("ok", value.metadata)
            elif isinstance(value, procedures.AttributesDifferError):
                answer("ok", core.directory.queue(queue["name"]))
            else:
                answer(status, None)

        self.process.run(lambda: procedures.create_queue(wanted, best.replicas, owner, attempt), ended)

    def change(self, name: str, op: Op, attributes: dict[str, str | None], answer: Answer) -> None:
        def found(queue: QueueMetadata) -> None:
            now_ms = self.process.clock_ms()
            self.process.run(lambda: procedures.change_queue(queue.queue_id, attributes, {}, None, now_ms), changed)

        def changed(status: str, value: Any) -> None:
            if status == "ok":
                self._submit(value, op, Configure(settings_of(value)), 0, answer)
            else:
                answer(status, None)

        self._find(name, answer, found)

    def drop(self, name: str, op: Op, answer: Answer) -> None:
        def found(queue: QueueMetadata) -> None:
            def sealed(status: str, value: Any) -> None:
                if status == "unknown":
                    answer(status, None)
                    return
                now_ms = self.process.clock_ms()
                # refused: it is gone; an attempt of ours that had no answer may have done it
                self.process.run(
                    lambda: procedures.delete_queue(queue, now_ms),
                    lambda status, value: answer("ok" if status == "ok" else "unknown", None),
                )

            self._submit(queue, op, Seal(), 0, sealed)

        self._find(name, answer, found)
