"""Operations on messages that were received: deleting them, and changing how long they stay invisible; and purging."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import errors
from distribution_manager.sqs.backend import Executed
from distribution_manager.sqs.errors import SqsError, invalid_value, missing_parameter
from distribution_manager.sqs.models import (
    BatchResult,
    ChangeMessageVisibilityBatchRequest,
    ChangeMessageVisibilityRequest,
    DeleteMessageBatchRequest,
    DeleteMessageRequest,
    FailedEntry,
    IdEntry,
    QueueRequest,
)
from distribution_manager.sqs.operations_message import failed_entry
from distribution_manager.sqs.service import Call, check_refused, refusal_error
from distribution_manager.sqs.validation import check_batch, check_visibility
from shadow_nodes.protocol.commands import ChangeVisibility, Delete, Items, Purge, Refusal
from shadow_nodes.protocol.handles import decode_handle


async def delete_message(call: Call, request: DeleteMessageRequest) -> None:
    queue = await call.queue(request.queue_url)
    if request.receipt_handle is None:
        raise missing_parameter("ReceiptHandle")
    handle = _decode(queue, request.receipt_handle)
    executed = await call.backend.execute(queue, Delete([handle]), key=call.caller.key)
    refusal = _outcomes(executed, 1)[0]
    if refusal is not None:
        raise refusal_error(refusal, request.receipt_handle)


async def delete_message_batch(call: Call, request: DeleteMessageBatchRequest) -> BatchResult:
    queue = await call.queue(request.queue_url)
    check_batch(request.entries, "DeleteMessageBatchRequestEntry")
    handles: list[tuple[int, int]] = []
    tried: list[tuple[str, str]] = []
    failed: list[FailedEntry] = []
    for number, entry in enumerate(request.entries or [], 1):
        if entry.receipt_handle is None:
            raise missing_parameter(f"DeleteMessageBatchRequestEntry.{number}.ReceiptHandle")
        try:
            handles.append(_decode(queue, entry.receipt_handle))
            tried.append((entry.id or "", entry.receipt_handle))
        except SqsError as error:
            failed.append(failed_entry(entry.id or "", error))
    outcomes: Sequence[Refusal | None] = []
    if handles:
        outcomes = _outcomes(await call.backend.execute(queue, Delete(handles), key=call.caller.key), len(handles))
    return _batch_result(tried, outcomes, failed, refusal_error)


async def change_message_visibility(call: Call, request: ChangeMessageVisibilityRequest) -> None:
    queue = await call.queue(request.queue_url)
    if request.receipt_handle is None:
        raise missing_parameter("ReceiptHandle")
    if request.visibility_timeout is None:
        raise missing_parameter("VisibilityTimeout")
    change = _change(queue, request.receipt_handle, request.visibility_timeout)
    executed = await call.backend.execute(queue, ChangeVisibility([change]), key=call.caller.key)
    refusal = _outcomes(executed, 1)[0]
    if refusal is not None:
        raise _visibility_error(refusal, request.receipt_handle)


async def change_message_visibility_batch(call: Call, request: ChangeMessageVisibilityBatchRequest) -> BatchResult:
    queue = await call.queue(request.queue_url)
    check_batch(request.entries, "ChangeMessageVisibilityBatchRequestEntry")
    changes: list[tuple[int, int, int]] = []
    tried: list[tuple[str, str]] = []
    failed: list[FailedEntry] = []
    for number, entry in enumerate(request.entries or [], 1):
        for parameter, value in (
            ("ReceiptHandle", entry.receipt_handle),
            ("VisibilityTimeout", entry.visibility_timeout),
        ):
            if value is None:
                raise missing_parameter(f"ChangeMessageVisibilityBatchRequestEntry.{number}.{parameter}")
        handle = entry.receipt_handle or ""
        try:
            changes.append(_change(queue, handle, entry.visibility_timeout or 0))
            tried.append((entry.id or "", handle))
        except SqsError as error:
            failed.append(failed_entry(entry.id or "", error))
    outcomes: Sequence[Refusal | None] = []
    if changes:
        executed = await call.backend.execute(queue, ChangeVisibility(changes), key=call.caller.key)
        outcomes = _outcomes(executed, len(changes))
    return _batch_result(tried, outcomes, failed, _visibility_error)


async def purge_queue(call: Call, request: QueueRequest) -> None:
    queue = await call.queue(request.queue_url)
    now_ms = call.service.now_ms()
    if call.service.purged.holds(queue.queue_id, now_ms):
        seconds = call.service.config.purge_interval_seconds
        raise SqsError(
            errors.PURGE_IN_PROGRESS,
            f"Only one PurgeQueue operation on {queue.name} is allowed every {seconds} seconds.",
        )
    queue, _ = await call.execute(queue, Purge())
    call.service.purged.note(queue.queue_id, now_ms)


def _decode(queue: QueueMetadata, handle: str) -> tuple[int, int]:
    """(key, delivery). A handle of another queue, or of a deleted namesake, is as invalid as one that was made up."""
    decoded = decode_handle(handle) if handle.isascii() else None
    if decoded is None or decoded[0] != queue.shard():
        raise SqsError(
            errors.RECEIPT_HANDLE_INVALID, f'The input receipt handle "{handle}" is not a valid receipt handle.'
        )
    return decoded[1], decoded[2]


def _change(queue: QueueMetadata, handle: str, seconds: int) -> tuple[int, int, int]:
    check_visibility(seconds)
    key, delivery = _decode(queue, handle)
    return key, delivery, seconds * 1000


def _outcomes(executed: Executed, count: int) -> Sequence[Refusal | None]:
    check_refused(executed)
    if executed.result is None:
        return [None] * count
    assert isinstance(executed.result, Items), "a delete or change of visibility is answered by Items or nothing"
    return executed.result.outcomes


def _visibility_error(refusal: Refusal, handle: str) -> Exception:
    if refusal is Refusal.HANDLE_EXPIRED:
        return invalid_value(
            handle, "ReceiptHandle", "Message does not exist or is not available for visibility timeout change."
        )
    return refusal_error(refusal, handle)


def _batch_result(
    tried: list[tuple[str, str]],
    outcomes: Sequence[Refusal | None],
    failed: list[FailedEntry],
    error_of: Callable[[Refusal, str], Exception],
) -> BatchResult:
    """``tried``: (entry id, receipt handle) of what was executed."""
    successful = []
    for (entry_id, handle), refusal in zip(tried, outcomes, strict=True):
        if refusal is None:
            successful.append(IdEntry(entry_id))
        else:
            failed.append(failed_entry(entry_id, error_of(refusal, handle)))
    return BatchResult(successful or None, failed or None)
