"""Requests on their way to the owner of their shard, wherever that is, until they are answered.

Model: a request is at one place: with an owner of ours, forwarded to another manager, or homeless (waiting for an owner
to be known, reachable or replaced). Whatever goes wrong makes it homeless, and it is repeated under the same id.
Invariant: every request is finished exactly once, at its deadline at the latest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from distribution_manager.core.limits import FORWARD_HOPS_MAX, LONG_POLL_SLICE_MS, REROUTE_INTERVAL_MS
from distribution_manager.core.messages import Forward, Reply, Verdict
from distribution_manager.core.metadata import Owner
from distribution_manager.core.request import Now, Request
from shadow_nodes.protocol.commands import Batch, Command, Receive, Result, ShardKey, Summary
from shadow_nodes.protocol.limits import OPERATION_HOLD_MS

Done = Callable[[int, int, Verdict, Result | None, Summary | None], None]
"""Called with session, counter, verdict, result, summary."""
ConnectionId = int

SPIN_GUARD_MS = 20
"""A waiting receive that came back empty at once is not repeated at once."""


class Switch(Protocol):
    """What the router asks of the manager around it."""

    now: Now
    life: int
    region: str

    def own(self, request: Request) -> bool:
        """Hands the request to an owner of ours, taking the shard over if it is ours to take. False: it is not."""

    def owner_of(self, shard: ShardKey) -> tuple[int, Owner | None]: ...

    def reachable(self, owner: Owner) -> bool:
        """Whether that very process is linked."""

    def relay_for(self, owner: Owner) -> str | None:
        """A third manager that may reach an owner that we cannot."""

    def buried(self, shard: ShardKey) -> bool: ...

    def hint(self, shard: ShardKey, epoch: int, owner: Owner | None) -> None: ...

    def send_to_manager(self, manager: str, message: Forward) -> None: ...

    def reply(self, connection: ConnectionId, message: Reply) -> None: ...

    def later(self, delay_ms: int, action: Callable[[], None]) -> None: ...


class Router:
    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._counter = 0
        self._forward_number = 0
        self._mine: dict[ShardKey, OrderedDict[int, Request]] = {}
        """Our own session's requests that are not finished, by counter, in rising order."""
        self._forwarded: dict[int, tuple[Request, Owner]] = {}
        self._homeless: dict[ShardKey, list[Request]] = {}
        self._passing: dict[Request, None] = {}
        """Other managers' requests that are not finished."""
        self._looking = False

    # --- clients ---------------------------------------------------------------------------------------------------

    def submit(
        self,
        shard: ShardKey,
        command: Command | None,
        wait_ms: int,
        done: Done,
        wanted: Callable[[], bool] = lambda: True,
        *,
        first: bool = True,
        key: str = "",
    ) -> None:
        """Carries out a command (None: asks for the counts) of a client with this access key id.

        A waiting receive goes in slices, each with its own id. The ``first`` of a receive with an attempt id does not
        wait: see ``Request.is_first_attempt``.
        """
        now = self._switch.now
        slice_ms = min(wait_ms, LONG_POLL_SLICE_MS)
        if isinstance(command, Receive) and command.attempt_id and first:
            slice_ms = 0
        until_ms = now.monotonic_ms + wait_ms

        def finish(request: Request, verdict: Verdict, result: Result | None, summary: Summary | None) -> None:
            if request.finished:
                return
            if verdict is Verdict.RETRY or verdict is Verdict.NOT_OWNER:
                request.repeated |= verdict is Verdict.RETRY
                self._lodge(request)
                return
            request.finished = True
            mine = self._mine[shard]
            del mine[request.counter]
            if not mine:
                del self._mine[shard]
            left_ms = until_ms - self._switch.now.monotonic_ms
            empty = verdict is Verdict.DONE and isinstance(result, Batch) and not result.messages
            if empty and left_ms > 0 and wanted():
                at_once = self._switch.now.monotonic_ms - request.arrived_ms < SPIN_GUARD_MS
                self._switch.later(
                    SPIN_GUARD_MS if at_once else 0,
                    lambda: self.submit(shard, command, left_ms, done, wanted, first=False, key=key),
                )
                return
            done(request.session, request.counter, verdict, result, summary)

        self._counter += 1
        counter = self._counter
        mine = self._mine.get(shard)
        if mine is None:
            mine = self._mine[shard] = OrderedDict()
        request = Request(
            shard,
            self._switch.life,
            counter,
            next(iter(mine), counter),
            command,
            now=now,
            deadline_ms=now.clock_ms + OPERATION_HOLD_MS + slice_ms,
            wait_ms=slice_ms if isinstance(command, Receive) else 0,
            hops=FORWARD_HOPS_MAX,
            region=self._switch.region,
            key=key,
            finish=finish,
        )
        mine[counter] = request
        self._route(request)

    # --- other managers' requests ----------------------------------------------------------------------------------

    def asked(self, connection: ConnectionId, message: Forward) -> None:
        """Another manager asks for something; it gets a Reply."""

        def finish(request: Request, verdict: Verdict, result: Result | None, summary: Summary | None) -> None:
            if request.finished:
                return
            request.finished = True
            self._passing.pop(request, None)
            epoch, owner = self._switch.owner_of(message.shard)
            self._switch.reply(connection, Reply(message.request, verdict, result, summary, epoch, owner))

        request = Request(
            message.shard,
            message.session,
            message.counter,
            message.answered_below,
            message.command,
            now=self._switch.now,
            deadline_ms=message.deadline_ms,
            wait_ms=message.wait_ms,
            hops=message.hops,
            region=message.region,
            repeated=message.repeated,
            left_ms=message.left_ms,
            key=message.key,
            finish=finish,
        )
        self._passing[request] = None
        if self._switch.buried(request.shard):
            finish(request, Verdict.GONE, None, None)
        elif not self._switch.own(request) and not self._pass_on(request):
            finish(request, Verdict.NOT_OWNER, None, None)

    # --- ways ------------------------------------------------------------------------------------------------------

    def _route(self, request: Request) -> None:
        if self._switch.buried(request.shard):
            request.finish(request, Verdict.GONE, None, None)
        elif not self._switch.own(request) and not self._pass_on(request):
            self._lodge(request)

    def _pass_on(self, request: Request) -> bool:
        """Forwards to the owner, or to a manager that may reach it."""
        _, owner = self._switch.owner_of(request.shard)
        if owner is None or request.hops <= 0:
            return False
        direct = self._switch.reachable(owner)
        manager = owner.manager if direct else self._switch.relay_for(owner)
        if manager is None or (not direct and request.hops < FORWARD_HOPS_MAX):
            return False
        self._forward_number += 1
        request.forwarded = self._forward_number
        self._forwarded[request.forwarded] = (request, owner)
        wait_ms = max(0, request.wait_until_ms - self._switch.now.monotonic_ms)
        self._switch.send_to_manager(
            manager,
            Forward(
                request.forwarded,
                request.shard,
                request.session,
                request.counter,
                request.answered_below,
                request.deadline_ms,
                wait_ms,
                request.hops - 1,
                request.region,
                request.command,
                request.repeated,
                max(0, request.expires_ms - self._switch.now.monotonic_ms),
                request.key,
            ),
        )
        return True

    def replied(self, message: Reply) -> None:
        """A manager has answered a Forward of ours."""
        entry = self._forwarded.pop(message.request, None)
        if entry is None:
            return
        request, _ = entry
        request.forwarded = 0
        if message.verdict is Verdict.NOT_OWNER:
            self._switch.hint(request.shard, message.epoch, message.owner)
        request.finish(request, message.verdict, message.result, message.summary)

    def _lodge(self, request: Request) -> None:
        """It has no place to go now: it waits, and looks again."""
        self._homeless.setdefault(request.shard, []).append(request)
        if not self._looking:
            self._looking = True
            self._switch.later(REROUTE_INTERVAL_MS, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        for shard in list(self._homeless):
            self.reconsider(shard)

    def reconsider(self, shard: ShardKey) -> None:
        """Something about the shard's owner may have changed: its homeless requests try again."""
        requests = self._homeless.pop(shard, [])
        for request in requests:
            if not request.finished:
                self._route(request)

    def recall(self, manager: str) -> None:
        """The link to a manager is down: what was forwarded over it must be asked anew, under the same ids."""
        self._recall(lambda _, owner: owner.manager == manager or not self._switch.reachable(owner))

    def recall_from(self, shard: ShardKey, owner: Owner | None) -> None:
        """The shard has a new owner: what was forwarded to another is asked of that."""
        self._recall(lambda request, asked: request.shard == shard and asked != owner)

    def _recall(self, concerned: Callable[[Request, Owner], bool]) -> None:
        numbers = [number for number, (request, owner) in self._forwarded.items() if concerned(request, owner)]
        for number in numbers:
            request, _ = self._forwarded.pop(number)
            request.forwarded = 0
            request.finish(request, Verdict.RETRY, None, None)

    def shards_waiting_for(self, manager: str) -> list[ShardKey]:
        """Shards with requests that wait for this manager, or have nowhere to go; in an order without hashes."""
        waiting = {request.shard: None for request, owner in self._forwarded.values() if owner.manager == manager}
        return list(waiting | dict.fromkeys(self._homeless))

    def sweep(self) -> None:
        """Ends what has passed its deadline: whether it was carried out is not known."""
        now_ms = self._switch.now.monotonic_ms
        late = [request for mine in self._mine.values() for request in mine.values() if request.expires_ms <= now_ms]
        late += [request for request in self._passing if request.expires_ms <= now_ms]
        for request in late:
            if request.forwarded:
                self._forwarded.pop(request.forwarded, None)
            request.finish(request, Verdict.EXPIRED, None, None)
        for shard, requests in list(self._homeless.items()):
            left = [request for request in requests if not request.finished]
            if left:
                self._homeless[shard] = left
            else:
                del self._homeless[shard]

    @property
    def open_requests(self) -> int:
        return sum(len(mine) for mine in self._mine.values()) + len(self._passing)
