"""Coordination over etcd, through the ``etcd3`` package's generated stubs.

Model: every call is one etcd request (a listing: one per page) within one bound; reads, and transactions that surely
were not sent, are repeated inside that bound; nothing else is.
Invariant: a Transaction is sent to etcd at most once.
The package's high-level client is passed over: it drops the header's revision and gets' revisions inside transactions,
and it has no paging. Its calls block; the stubs' futures do not, so no thread stands between the event loop and gRPC's
own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_random_exponential

from distribution_manager.coordination.etcd3_protobuf import etcdrpc
from distribution_manager.coordination.etcd_connection import (
    CompactedError,
    Connections,
    LeaseNotFoundError,
    key_bytes,
    key_text,
    kv_range,
)
from distribution_manager.coordination.etcd_names import EtcdNames
from distribution_manager.coordination.etcd_session import Session
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.coordination.etcd_watch import EtcdWatch, prefix_end
from distribution_manager.coordination.interface import CoordinationUnavailable, Counters, check_transaction
from distribution_manager.core.transactions import (
    Change,
    Compare,
    KeyValue,
    Outcome,
    Put,
    Remove,
    Snapshot,
    Transaction,
)
from shadow_nodes.resolve import Resolver

T = TypeVar("T")

PAGE_KEYS_MAX = 1_000
LISTING_TIMEOUT_S = 30.0
"""A whole listing, of any number of pages. Compaction between two of its pages makes it begin again."""
REPEAT_WAIT_MAX_S = 0.25


class EtcdCoordination:
    """Implements interface.Coordination."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._prefix = settings.prefix
        self._counters = Counters()
        self._names = EtcdNames(settings.endpoints, Resolver(settings.nameservers))
        self._connections = Connections(settings, self._counters, self._names.suspect)
        self._session = Session(self._connections)
        self._closed = asyncio.Event()

    @property
    def healthy(self) -> bool:
        return self._connections.healthy

    @property
    def counters(self) -> Counters:
        return self._counters

    @property
    def session(self) -> int | None:
        return self._session.lease

    @property
    def stale_names(self) -> int:
        """Questions to DNS whose last answer is used beyond its time."""
        return self._names.stale

    def on_session(self, callback: Callable[[int], None]) -> None:
        self._session.on_session(callback)

    async def start(self) -> None:
        await self._names.start(self._connections)
        self._session.start()

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        await self._session.close()
        await self._names.close()
        self._connections.close()

    async def transact(self, transaction: Transaction) -> Outcome:
        check_transaction(transaction)
        deadline_s = time.monotonic() + self._settings.call_timeout_s
        return await self._repeat(deadline_s, self._transact_once, transaction, deadline_s)

    async def get(self, key: str) -> KeyValue | None:
        deadline_s = time.monotonic() + self._settings.call_timeout_s
        request = etcdrpc.RangeRequest(key=self._full(key))
        response = await self._repeat(deadline_s, self._read, request)
        return self._key_value(response.kvs[0]) if response.kvs else None

    async def list_prefix(self, prefix: str) -> Snapshot:
        deadline_s = time.monotonic() + LISTING_TIMEOUT_S
        while True:
            try:
                return await self._list_once(self._full(prefix))
            except CompactedError as error:
                if time.monotonic() > deadline_s:
                    raise CoordinationUnavailable(f"compacted faster than it could be listed: {error}") from error

    def watch(self) -> AsyncGenerator[Snapshot | list[Change], None]:
        return EtcdWatch(self._connections, lambda: self.list_prefix(""), self._closed).run()

    # --- one request each -----------------------------------------------------------------------------------

    async def _transact_once(self, transaction: Transaction, deadline_s: float) -> Outcome:
        lease = 0
        if any(isinstance(change, Put) and change.leased for change in transaction.changes):
            lease = await self._session.wait_granted(deadline_s - time.monotonic())
        request = self._request(transaction, lease)
        try:
            response = await self._connections.change(lambda client: client.kvstub.Txn, request, deadline_s)
        except LeaseNotFoundError:
            self._session.report_lost(lease)
            raise
        found = (self._key_value(kv) for part in response.responses for kv in part.response_range.kvs)
        return Outcome(response.succeeded, response.header.revision, {item.key: item for item in found})

    def _request(self, transaction: Transaction, lease: int) -> Any:
        reads = [
            etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=self._full(key))) for key in transaction.reads
        ]
        return etcdrpc.TxnRequest(
            compare=[part for compare in transaction.compares for part in self._comparisons(compare)],
            success=[self._operation(change, lease) for change in transaction.changes] + reads,
            failure=reads,
        )

    def _comparisons(self, compare: Compare) -> list[Any]:
        equal, key = etcdrpc.Compare.EQUAL, self._full(compare.key)
        parts = [etcdrpc.Compare(result=equal, target=etcdrpc.Compare.MOD, key=key, mod_revision=compare.mod_revision)]
        if compare.value is not None:
            parts.append(etcdrpc.Compare(result=equal, target=etcdrpc.Compare.VALUE, key=key, value=compare.value))
        return parts

    def _operation(self, change: Put | Remove, lease: int) -> Any:
        key = self._full(change.key)
        if isinstance(change, Remove):
            return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=key))
        put = etcdrpc.PutRequest(key=key, value=change.value, lease=lease if change.leased else 0)
        return etcdrpc.RequestOp(request_put=put)

    async def _list_once(self, key: bytes) -> Snapshot:
        items: list[KeyValue] = []
        revision, end = 0, prefix_end(key)
        while True:
            request = etcdrpc.RangeRequest(key=key, range_end=end, revision=revision, limit=PAGE_KEYS_MAX)
            deadline_s = time.monotonic() + self._settings.call_timeout_s
            page = await self._repeat(deadline_s, self._read, request)
            revision = revision or int(page.header.revision)
            items.extend(self._key_value(kv) for kv in page.kvs)
            if not page.more:
                return Snapshot(revision, items)
            key = page.kvs[-1].key + b"\0"

    async def _read(self, request: Any) -> Any:
        """Half of a call's bound, so that a second endpoint gets its chance."""
        return await self._connections.read(kv_range, request, self._settings.call_timeout_s / 2)

    async def _repeat(self, deadline_s: float, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Repeats what surely has not happened, or only reads."""
        try:
            return await call(*arguments)  # most succeed at once, and retrying would cost them a sixth more
        except CoordinationUnavailable as error:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._worth_repeating(error):
                raise
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._worth_repeating),
            stop=stop_before_delay(left_s),
            wait=wait_random_exponential(multiplier=0.01, max=REPEAT_WAIT_MAX_S),
            reraise=True,
        )
        return await retrying(call, *arguments)

    def _worth_repeating(self, error: BaseException) -> bool:
        return isinstance(error, CoordinationUnavailable) and not self._closed.is_set()

    def _full(self, key: str) -> bytes:
        return key_bytes(self._prefix + key)

    def _key_value(self, kv: Any) -> KeyValue:
        return KeyValue(key_text(kv.key)[len(self._prefix) :], kv.value, kv.mod_revision)
