"""``POST /admin/replay``: puts the messages that a queue's log says came into it into another queue, once each.

``source``, ``into``; the range as of ``/admin/log``; ``rate`` (messages per second; 0: any); ``dry_run=1``; ``id`` (16
hex digits) to go on with a replay that was interrupted. Answers with a stream of JSON lines.

Model: messages travel as letters do between queues (``Accept``): numbered by their place in the source's log, from a
source that is named after the replay. So the target takes each once, however often it is tried, and remembers for good.
They keep id, body, attributes, group and deduplication id; they count as sent now, and neither the target's
deduplication window nor a delay keeps any of them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Iterator

import msgspec
from aiohttp import web

from distribution_manager.core.limits import LETTERS_PER_ACCEPT_MAX
from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.operator.log_api import DIGITS_MAX, Write, line_writer, locate, notice, refusal
from distribution_manager.operator.log_reader import LogError, LoggedEntry, LogReader
from distribution_manager.sqs.backend import Backend, QueueGone, Unavailable
from shadow_nodes.peer_http import PeerHttp
from shadow_nodes.protocol.audit import Repeated, Taken
from shadow_nodes.protocol.commands import Accept, Content, Letter, Purge, Refused, Send, Sent
from shadow_nodes.protocol.limits import ENTRY_BYTES_MAX

REPLAY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
PLACE_BITS = 12
"""Room in a letter's number for the operation's place in its entry, and for the message's place in that."""
REPORT_SECONDS = 0.25
RETRY_SECONDS = 1.0
TRIES_MAX = 20
"""How often a batch is tried whose outcome is unknown."""

Message = tuple[int, tuple[int, int, int], Content]
"""(number, message id, content)"""


class Counts(msgspec.Struct):
    messages: int = 0
    """Placed, or to be placed in a dry run."""
    left_out: int = 0
    """Sends that made no message in the source: duplicates, refused ones, copies."""
    purges: int = 0


def arrivals(logged: LoggedEntry, counts: Counts) -> Iterator[Message]:
    """The messages that came into the queue by this entry: sent, or as letters of other queues."""
    entry = logged.entry
    for index, operation in enumerate(entry.operations):
        command, outcome = operation.command, logged.outcomes.get(index)
        number = (entry.seq << 2 * PLACE_BITS) + (index << PLACE_BITS)
        counts.purges += isinstance(command, Purge)
        if isinstance(command, Send):
            session = entry.sessions[operation.session].id
            for place, content in enumerate(command.messages):
                identity = (session, operation.counter, place)
                made = outcome is None
                if isinstance(outcome, Sent):
                    one = outcome.messages[place]
                    made = isinstance(one, tuple) and one[1] == identity
                if made:
                    yield number + place, identity, content
                counts.left_out += not made
        elif isinstance(command, Accept):
            skipped = len(command.letters) if isinstance(outcome, Repeated | Refused) else 0
            skipped = outcome.skipped if isinstance(outcome, Taken) else skipped
            counts.left_out += skipped
            for place, letter in enumerate(command.letters[skipped:], skipped):
                yield number + place, letter.message_id, letter.content


class ReplayApi:
    def __init__(self, core: ManagerCore, backend: Backend, peers: PeerHttp) -> None:
        self._core = core
        self._backend = backend
        self._peers = peers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        source, target = (self._core.directory.queue(query.get(name, "")) for name in ("source", "into"))
        rate, replay_id = query.get("rate", "0"), query.get("id", "") or secrets.token_hex(8)
        mistakes = (
            (source is None, f"there is no queue {query.get('source', '')!r}"),
            (target is None, f"there is no queue {query.get('into', '')!r}: create it first"),
            (source is target, "a queue cannot be replayed into itself: create another one and name that"),
            (
                source is not None and target is not None and source.fifo != target.fifo,
                "both queues must be FIFO queues, or neither",
            ),
            (
                not (rate.isascii() and rate.isdigit() and len(rate) <= DIGITS_MAX),
                f"rate: {rate[:DIGITS_MAX]!r} is not a whole number of at most {DIGITS_MAX} digits",
            ),
            (not REPLAY_ID.fullmatch(replay_id), f"id: {replay_id!r} is not a replay's, 16 hexadecimal digits"),
        )
        for wrong, text in mistakes:
            if wrong:
                return refusal(400, text)
        assert source is not None
        assert target is not None
        reader = LogReader(self._core, self._peers, source.shard())
        try:
            wanted = await locate(reader, query)
        except LogError as error:
            return refusal(error.status, str(error))
        if wanted.lacking:
            return refusal(409, f"the log begins at {wanted.begins}: replay from there, or from later")
        response = web.StreamResponse()
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        write = line_writer(response)
        first = wanted.first
        with contextlib.suppress(ConnectionResetError):  # whoever asked has gone
            await write({"type": "replay", "id": replay_id, "from": first, "to": wanted.last})
            if first == wanted.begins > 1:
                await write(notice(f"the log begins at {first}: what was sent before is no longer kept, nor replayed"))
            replay = _Replay(self._backend, target, replay_id, write, rate=int(rate), dry_run="dry_run" in query)
            await replay.run(reader, first, wanted.last, wanted.until_ms)
            await response.write_eof()
        return response


class _Replay:
    def __init__(
        self, backend: Backend, target: QueueMetadata, replay_id: str, write: Write, *, rate: int, dry_run: bool
    ) -> None:
        self._backend = backend
        self._target = target
        self._source = f"replay/{replay_id}"
        self._rate = rate
        self._dry_run = dry_run
        self._write = write
        self._counts = Counts()
        self._began_s = self._told_s = time.monotonic()
        self._letters: list[Letter] = []
        self._letters_bytes = 0
        self._batch_max = min(LETTERS_PER_ACCEPT_MAX, max(1, rate // 5)) if rate else LETTERS_PER_ACCEPT_MAX
        self._next_seq = 0
        """Everything before this entry is in the target; only looked at while letters wait."""

    async def run(self, reader: LogReader, first: int, last: int, until_ms: float) -> None:
        end = first
        try:
            async for logged in reader.entries(first - 1, last):
                if logged is None or logged.entry.now_ms > until_ms:
                    break
                for message in arrivals(logged, self._counts):
                    await self._add(*message)
                end = logged.entry.seq + 1
                await self._report(end)
            await self._send()
            self._next_seq = end
        except (LogError, QueueGone, Unavailable) as error:
            await self._write({"type": "failed", "text": str(error), "next": self._next_seq or end})
        else:
            if self._counts.purges:
                text = f"{self._counts.purges} purges lie in the range: what they dropped was replayed as well"
                await self._write(notice(text))
            await self._write({"type": "end", "next": self._next_seq} | msgspec.structs.asdict(self._counts))

    async def _add(self, number: int, identity: tuple[int, int, int], content: Content) -> None:
        self._counts.messages += 1
        if self._dry_run:
            return
        size_bytes = len(content.body) + len(content.attributes)
        if len(self._letters) >= self._batch_max or self._letters_bytes + size_bytes > ENTRY_BYTES_MAX // 2:
            await self._send()
        if not self._letters:
            self._next_seq = number >> 2 * PLACE_BITS
        self._letters.append(Letter(number, identity, content, time.time_ns() // 1_000_000, self._target.name))
        self._letters_bytes += size_bytes

    async def _send(self) -> None:
        """Raises QueueGone, and Unavailable after many tries: the target takes no letter twice."""
        letters, self._letters, self._letters_bytes = self._letters, [], 0
        if not letters:
            return
        if self._rate:
            due_s = self._began_s + (self._counts.messages - len(letters)) / self._rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        for number in range(1, TRIES_MAX + 1):
            try:
                await self._backend.execute(self._target, Accept(self._source, letters))
            except Unavailable:
                if number == TRIES_MAX:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break

    async def _report(self, end: int) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= REPORT_SECONDS:
            self._told_s = now_s
            done = self._next_seq if self._letters else end
            progress = {"type": "progress", "seq": end - 1, "next": done, "messages": self._counts.messages}
            await self._write(progress)
