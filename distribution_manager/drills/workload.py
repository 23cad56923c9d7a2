"""Clients at work while faults happen: threads with boto3, sending, receiving and deleting through every endpoint.

Model: each worker has one boto3 client, with the SDK's own retries, on one endpoint, and does one thing after the
other. Senders number their messages, so that a body names a message; of a FIFO queue each sender has a message group to
itself. Receivers leave some messages to their visibility timeout. Everything is recorded as it is seen (history.py).
Invariant: an outcome that the client cannot prove is recorded as unknown.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from distribution_manager.drills.history import DRAINED, Delivery, Operation, Outcome, Recorder

RECEIVE_MESSAGES_MAX: Final = 10
BATCH: Final = 5
BATCH_SHARE: Final = 0.2
PAUSE_AFTER_FAILURE_S: Final = 0.2
POLL_S: Final = 0.1
DRAIN_MARGIN_S: Final = 1.0
JOIN_TIMEOUT_S: Final = 150.0
"""A call on a connection to a frozen process takes the SDK's 60 s read timeout, and then its retry."""


@dataclass(frozen=True)
class WorkloadConfig:
    """``queues``: names, those of FIFO queues ending in .fifo; made by the caller. ``endpoints``: region -> URL.

    ``visibility_s``: of every receive. ``forget_share``: of the messages received, those that are not deleted.
    ``send_pause_s``: between two sends of one worker.
    """

    endpoints: Mapping[str, str]
    queues: tuple[str, ...]
    senders_per_endpoint: int = 1
    receivers_per_endpoint: int = 1
    visibility_s: int = 8
    wait_s: int = 1
    forget_share: float = 0.02
    send_pause_s: float = 0.005
    seed: int = 1


def make_client(endpoint: str, session: Any = None, **settings: Any) -> Any:
    """A boto3 SQS client with the SDK's defaults, except for ``settings`` (of botocore's Config)."""
    return (session or boto3.session.Session()).client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="drill",
        aws_secret_access_key="drill",
        config=Config(**settings),
    )


class Workload:
    """start, then whatever is to happen, then drain, then stop."""

    def __init__(self, config: WorkloadConfig, recorder: Recorder) -> None:
        self.recorder = recorder
        self._config = config
        self._stop_sending = threading.Event()
        self._stop = threading.Event()
        session = boto3.session.Session()
        self._senders: list[_Sender] = []
        self._receivers: list[_Receiver] = []
        for region, endpoint in config.endpoints.items():
            for number in range(config.senders_per_endpoint):
                client = make_client(endpoint, session)
                self._senders.append(_Sender(f"s{number}-{region}", region, client, config, recorder))
            for number in range(config.receivers_per_endpoint):
                client = make_client(endpoint, session)
                self._receivers.append(_Receiver(f"r{number}-{region}", region, client, config, recorder))

    def start(self) -> None:
        for sender in self._senders:
            sender.start(self._stop_sending)
        for receiver in self._receivers:
            receiver.start(self._stop)

    def drain(self, timeout_s: float) -> bool:
        """Ends the senders, receives and deletes what is left; whether all was seen to be gone before the timeout."""
        self._stop_sending.set()
        _join(self._senders)
        for receiver in self._receivers:
            receiver.draining = True
        began = time.monotonic()
        while time.monotonic() < began + timeout_s:
            time.sleep(POLL_S)
            if all(self._empty(queue, began) for queue in self._config.queues):
                self.recorder.mark(DRAINED, begin_s=began)
                return True
        return False

    def stop(self) -> None:
        """Ends all workers; those with a call under way finish it first."""
        self._stop_sending.set()
        self._stop.set()
        _join([*self._senders, *self._receivers])

    def _empty(self, queue: str, since_s: float) -> bool:
        """Somebody looked and found nothing, after all that may have been held had become visible again."""
        held_until_s = max([since_s, *(receiver.held_until_s.get(queue, 0.0) for receiver in self._receivers)])
        return any(
            receiver.looked_s.get(queue, 0.0) > held_until_s + DRAIN_MARGIN_S and not receiver.found.get(queue)
            for receiver in self._receivers
        )


class _Worker:
    def __init__(self, name: str, region: str, client: Any, config: WorkloadConfig, recorder: Recorder) -> None:
        self.name = name
        self.region = region
        self.client = client
        self.config = config
        self.recorder = recorder
        self.random = random.Random(f"{config.seed} {name}")
        self.urls: dict[str, str] = {}
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.stop = threading.Event()
        self.gone = False

    def start(self, stop: threading.Event) -> None:
        self.stop = stop
        self.thread.start()

    def _run(self) -> None:
        while not (self.stop.is_set() or self.gone):
            for queue in self.config.queues:
                if not self.work(queue):
                    self.stop.wait(PAUSE_AFTER_FAILURE_S)

    def work(self, queue: str) -> bool:
        """One round; False after a failure."""
        raise NotImplementedError

    def url(self, queue: str) -> str:
        """Raises ClientError, BotoCoreError."""
        if queue not in self.urls:
            self.urls[queue] = self.client.get_queue_url(QueueName=queue)["QueueUrl"]
        return self.urls[queue]

    def record(self, kind: Any, queue: str, begin_s: float, outcome: Outcome, **more: Any) -> None:
        end_s = time.monotonic()
        self.recorder.add(Operation(kind, self.name, self.region, queue, begin_s, end_s, outcome, **more))

    def record_error(self, kind: Any, queue: str, begin_s: float, error: Exception, **more: Any) -> None:
        outcome, text, retries = classify(error)
        self.record(kind, queue, begin_s, outcome, error=text, retries=retries, **more)


class _Sender(_Worker):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._count = 0

    def work(self, queue: str) -> bool:
        self.stop.wait(self.config.send_pause_s)
        if queue.endswith(".fifo"):
            body = self._body(queue)
            return self._send(queue, body, MessageGroupId=self.name, MessageDeduplicationId=body)
        if self.random.random() < BATCH_SHARE:
            return self._send_batch(queue, [self._body(queue) for _ in range(BATCH)])
        return self._send(queue, self._body(queue))

    def _body(self, queue: str) -> str:
        self._count += 1
        return f"{queue}/{self.name}/{self._count}"

    def _send(self, queue: str, body: str, **options: Any) -> bool:
        group = options.get("MessageGroupId", "")
        begin_s = time.monotonic()
        try:
            answer = self.client.send_message(QueueUrl=self.url(queue), MessageBody=body, **options)
        except (ClientError, BotoCoreError) as error:
            self.record_error("send", queue, begin_s, error, body=body, group=group)
            return False
        sequence = int(answer.get("SequenceNumber", 0))
        self.record(
            "send",
            queue,
            begin_s,
            "ok",
            body=body,
            group=group,
            sequence=sequence,
            message_id=answer["MessageId"],
            retries=_retries(answer),
        )
        return True

    def _send_batch(self, queue: str, bodies: list[str]) -> bool:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        begin_s = time.monotonic()
        try:
            answer = self.client.send_message_batch(QueueUrl=self.url(queue), Entries=entries)
        except (ClientError, BotoCoreError) as error:
            for body in bodies:
                self.record_error("send", queue, begin_s, error, body=body)
            return False
        for entry in answer.get("Successful", []):
            body, retries = bodies[int(entry["Id"])], _retries(answer)
            self.record("send", queue, begin_s, "ok", body=body, message_id=entry["MessageId"], retries=retries)
        for entry in answer.get("Failed", []):
            self.record("send", queue, begin_s, _of_entry(entry), body=bodies[int(entry["Id"])], error=entry["Code"])
        return not answer.get("Failed")


class _Receiver(_Worker):
    """``looked_s``: when the last answered receive began; ``found``: whether it brought anything.

    ``held_until_s``: until when a message may be held, by this worker or for an answer that never came.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.draining = False
        self.looked_s: dict[str, float] = {}
        self.found: dict[str, bool] = {}
        self.held_until_s: dict[str, float] = {}

    def work(self, queue: str) -> bool:
        begin_s = time.monotonic()
        try:
            answer = self.client.receive_message(
                QueueUrl=self.url(queue),
                MaxNumberOfMessages=RECEIVE_MESSAGES_MAX,
                VisibilityTimeout=self.config.visibility_s,
                WaitTimeSeconds=self.config.wait_s,
                MessageSystemAttributeNames=["All"],
            )
        except (ClientError, BotoCoreError) as error:
            self._hold(queue)
            self.record_error("receive", queue, begin_s, error)
            # a dead endpoint must not make it look as if messages were held for ever
            self.gone = self.draining
            return False
        messages = answer.get("Messages", [])
        self.record(
            "receive",
            queue,
            begin_s,
            "ok",
            visibility_s=float(self.config.visibility_s),
            deliveries=tuple(_delivery(message) for message in messages),
            retries=_retries(answer),
        )
        if messages or _retries(answer):
            self._hold(queue)
        self.looked_s[queue], self.found[queue] = begin_s, bool(messages)
        return self._delete(queue, [message for message in messages if self._keeps(message)])

    def _hold(self, queue: str) -> None:
        self.held_until_s[queue] = time.monotonic() + self.config.visibility_s

    def _keeps(self, message: dict[str, Any]) -> bool:
        return self.draining or self.random.random() >= self.config.forget_share

    def _delete(self, queue: str, messages: list[dict[str, Any]]) -> bool:
        if len(messages) > 1 and self.random.random() < BATCH_SHARE:
            return self._delete_batch(queue, messages)
        done = [self._delete_one(queue, message) for message in messages]
        return all(done)

    def _delete_one(self, queue: str, message: dict[str, Any]) -> bool:
        names = {"message_id": message["MessageId"], "body": message["Body"]}
        begin_s = time.monotonic()
        try:
            answer = self.client.delete_message(QueueUrl=self.url(queue), ReceiptHandle=message["ReceiptHandle"])
        except (ClientError, BotoCoreError) as error:
            self.record_error("delete", queue, begin_s, error, **names)
            return False
        self.record("delete", queue, begin_s, "ok", retries=_retries(answer), **names)
        return True

    def _delete_batch(self, queue: str, messages: list[dict[str, Any]]) -> bool:
        entries = [{"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(messages)]
        names = [{"message_id": each["MessageId"], "body": each["Body"]} for each in messages]
        begin_s = time.monotonic()
        try:
            answer = self.client.delete_message_batch(QueueUrl=self.url(queue), Entries=entries)
        except (ClientError, BotoCoreError) as error:
            for name in names:
                self.record_error("delete", queue, begin_s, error, **name)
            return False
        for entry in answer.get("Successful", []):
            self.record("delete", queue, begin_s, "ok", retries=_retries(answer), **names[int(entry["Id"])])
        for entry in answer.get("Failed", []):
            self.record("delete", queue, begin_s, _of_entry(entry), error=str(entry["Code"]), **names[int(entry["Id"])])
        return not answer.get("Failed")


def classify(error: Exception) -> tuple[Outcome, str, int]:
    """Outcome, text and retries of a call that raised. Only a refusal (4xx) proves that nothing was done."""
    if isinstance(error, ClientError):
        metadata = error.response.get("ResponseMetadata", {})
        refused = 400 <= metadata.get("HTTPStatusCode", 500) < 500
        return "failed" if refused else "unknown", str(error), int(metadata.get("RetryAttempts", 0))
    return "unknown", f"{type(error).__name__}: {error}", 0


def _of_entry(entry: dict[str, Any]) -> Outcome:
    return "failed" if entry.get("SenderFault") else "unknown"


def _retries(answer: dict[str, Any]) -> int:
    return int(answer["ResponseMetadata"].get("RetryAttempts", 0))


def _delivery(message: dict[str, Any]) -> Delivery:
    attributes = message.get("Attributes", {})
    return Delivery(
        message["MessageId"],
        message["Body"],
        attributes.get("MessageGroupId", ""),
        int(attributes.get("SequenceNumber", 0)),
        int(attributes.get("ApproximateReceiveCount", 0)),
    )


def _join(workers: Iterable[_Worker]) -> None:
    """Raises TimeoutError when one does not end."""
    for worker in workers:
        if worker.thread.is_alive():
            worker.thread.join(JOIN_TIMEOUT_S)
            if worker.thread.is_alive():
                raise TimeoutError(f"{worker.name} does not end")
