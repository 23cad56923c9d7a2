"""Finishes deletions that were begun and abandoned: a queue that is sealed, and still in etcd.

Model: DeleteQueue seals the queue's shard, which only a deletion does, then takes it out of etcd. A client that gave up
in between, or whose manager died, leaves a queue that refuses everything and bars its name. The owner's manager sees
that, and buries it.
"""

from __future__ import annotations

import asyncio
import logging

from distribution_manager.backend import CoreBackend
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.owner import Phase
from distribution_manager.driver import Driver
from distribution_manager.sqs.backend import QueueGone
from shadow_nodes.protocol.errors import RejectedError

ROUND_SECONDS = 2.0
"""A sealed queue is left to whoever sealed it for one round, and buried in the next."""

log = logging.getLogger(__name__)


class Undertaker:
    def __init__(self, driver: Driver, backend: CoreBackend) -> None:
        self._core = driver.core
        self._backend = backend

    async def run(self) -> None:
        """Until cancelled."""
        seen: set[str] = set()
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            sealed = {queue.queue_id: queue for queue in self._sealed()}
            for queue_id in seen & sealed.keys():
                await self._bury(sealed[queue_id])
            seen = set(sealed)

    def _sealed(self) -> list[QueueMetadata]:
        """Queues of which this manager owns a sealed shard."""
        found = (
            self._core.metadata(shard)
            for shard, owner in self._core.owners.items()
            if owner.sealed and owner.phase is Phase.SERVING
        )
        return [queue for queue in found if queue is not None]

    async def _bury(self, queue: QueueMetadata) -> None:
        try:
            await self._backend.delete_queue(queue)
        except QueueGone:
            return
        except RejectedError as error:
            log.warning("the deletion of queue %s waits: %s", queue.name, error)
        else:
            log.info("finished the deletion of queue %s, which somebody had begun", queue.name)
