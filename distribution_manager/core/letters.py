"""Letters on their way: from the outbox of a shard of ours to the queue they are for, as any operation goes.

Model: letters go in the order of their numbers; Accept takes each number once; Settle follows when Accept is committed.
Whatever is interrupted is repeated, from the outbox, which is replicated. So each arrives exactly once.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from distribution_manager.core.attributes import settings_of
from distribution_manager.core.directory import Directory
from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.owner import ShardOwner
from distribution_manager.core.router import Router
from shadow_nodes.protocol.commands import Accept, Letter, Result, ShardKey, Summary


class PostOffice(Protocol):
    owners: dict[ShardKey, ShardOwner]
    directory: Directory
    router: Router


def carry(office: PostOffice, shard: ShardKey, letters: list[Letter]) -> None:
    """Carries the first letters that are for one queue.

    Where that does not exist (any more) they go back into the queue they come from, so that others are not kept
    waiting; but not into a FIFO queue, whose order they would upset: there they wait, and block only their groups.
    """
    source = office.directory.metadata(shard)
    owner = office.owners.get(shard)
    if source is None or owner is None:
        return
    target = office.directory.queue(letters[0].target) or (None if source.fifo else source)
    if target is None:
        return
    run = _first_run(letters, source)

    def done(_s: int, _c: int, verdict: Verdict, result: Result | None, _summary: Summary | None) -> None:
        accepted = verdict is Verdict.DONE and result is None
        owner.letters_carried(run[-1].number if accepted else None)

    office.router.submit(target.shard(), Accept(shard, run), 0, done)


def _first_run(letters: list[Letter], source: QueueMetadata) -> list[Letter]:
    """Those with the first one's target. A dead letter is told where it comes from; one on its way back knows."""
    dead = letters[0].target == settings_of(source).dead_letter_queue
    run: list[Letter] = []
    for letter in letters:
        if letter.target != letters[0].target:
            break
        run.append(msgspec.structs.replace(letter, source=source.name) if dead else letter)
    return run
