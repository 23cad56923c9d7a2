"""Clients that cost little: much load, at rates that are functions of time, from one process, every call recorded.

Model: as distribution_manager/drills/workload.py, but asyncio and the benchmarks' client, which repeats nothing: a call
that fails has failed. Messages go and are deleted in batches; what is counted and judged are messages, not calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.client import CallError, SqsClient
from distribution_manager.drills.history import DRAINED, Delivery, Operation, Outcome, Recorder

BATCH = 5
STEP_S = 0.05
WAIT_S = 1
VISIBILITY_S = 60.0
DRAIN_S = 60.0
CONNECTIONS = 64

Rate = Callable[[float], float]
"""Messages a second, by the seconds since the load began."""


class LeanWorkload:
    """``rates``: region -> rate of its senders. ``receivers``: region -> how many wait there for messages."""

    def __init__(
        self,
        endpoints: Mapping[str, str],
        queue: str,
        rates: Mapping[str, Rate],
        receivers: Mapping[str, int],
        recorder: Recorder,
    ) -> None:
        self.recorder = recorder
        self.errors: list[str] = []
        self.calls = 0
        self._endpoints = endpoints
        self._queue = queue
        self._rates = rates
        self._receivers = receivers
        self._clients: dict[str, SqsClient] = {}
        self._urls: dict[str, str] = {}
        self._stopping = False
        self._sent = 0
        self._undeleted = 0
        self._emptied_s: dict[str, float] = {}
        """When the last receive began that brought nothing, by receiver."""

    async def run(self, duration_s: float, meanwhile: Callable[[], object] | None = None) -> bool:
        """The load for so long, and until all is received and deleted; ``meanwhile`` runs in a thread beside it, from
        the beginning. Returns whether the queue was seen to be empty."""
        for region, endpoint in self._endpoints.items():
            client = self._clients[region] = SqsClient(endpoint, CONNECTIONS)
            answer = await client.call("GetQueueUrl", {"QueueName": self._queue})
            self._urls[region] = str(answer["QueueUrl"])
        receivers = [
            asyncio.create_task(self._receive(region, f"r{number}-{region}"))
            for region, count in self._receivers.items()
            for number in range(count)
        ]
        beside = None if meanwhile is None else asyncio.create_task(asyncio.to_thread(meanwhile))
        await asyncio.gather(*(self._send(region, rate, duration_s) for region, rate in self._rates.items()))
        if beside is not None:
            await beside
        drained = await self._drain(len(receivers))
        self._stopping = True
        await asyncio.gather(*receivers)
        for client in self._clients.values():
            self.calls += client.calls
            await client.__aexit__()
        return drained

    async def _drain(self, receivers: int) -> bool:
        began_s = time.monotonic()
        while time.monotonic() < began_s + DRAIN_S:
            looked = [seen_s for seen_s in self._emptied_s.values() if seen_s > began_s]
            if len(looked) == receivers and self._undeleted == 0:
                self.recorder.mark(DRAINED, begin_s=began_s)
                return True
            await asyncio.sleep(STEP_S)
        return False

    # --- senders ---------------------------------------------------------------------------------------------------

    async def _send(self, region: str, rate: Rate, duration_s: float) -> None:
        began_s = time.monotonic()
        owed = 0.0
        async with asyncio.TaskGroup() as calls:
            while (passed_s := time.monotonic() - began_s) < duration_s:
                owed += rate(passed_s) * STEP_S
                while owed >= BATCH:
                    owed -= BATCH
                    calls.create_task(self._send_batch(region))
                await asyncio.sleep(STEP_S)

    async def _send_batch(self, region: str) -> None:
        bodies = []
        for _ in range(BATCH):
            self._sent += 1
            bodies.append(f"{self._queue}/{region}/{self._sent}")
        begin_s = time.monotonic()
        try:
            answer = await self._clients[region].send_batch(self._urls[region], bodies)
        except (CallError, OSError) as error:
            for body in bodies:
                self._failed("send", region, f"s-{region}", begin_s, error, body=body)
            return
        for entry in answer.get("Successful", []):
            body = bodies[int(entry["Id"])]
            self._record("send", region, f"s-{region}", begin_s, body=body, message_id=entry["MessageId"])
        for entry in answer.get("Failed", []):
            self._failed("send", region, f"s-{region}", begin_s, str(entry), body=bodies[int(entry["Id"])])

    # --- receivers -------------------------------------------------------------------------------------------------

    async def _receive(self, region: str, worker: str) -> None:
        client, url = self._clients[region], self._urls[region]
        asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": WAIT_S}
        while not self._stopping:
            begin_s = time.monotonic()
            try:
                answer = await client.call("ReceiveMessage", {**asked, "VisibilityTimeout": int(VISIBILITY_S)})
            except (CallError, OSError) as error:
                self._failed("receive", region, worker, begin_s, error)
                await asyncio.sleep(STEP_S)
                continue
            messages = answer.get("Messages") or []
            deliveries = tuple(Delivery(message["MessageId"], message["Body"]) for message in messages)
            self._record("receive", region, worker, begin_s, deliveries=deliveries, visibility_s=VISIBILITY_S)
            if messages:
                self._undeleted += len(messages)
                await self._delete(region, worker, messages)
            else:
                self._emptied_s[worker] = begin_s

    async def _delete(self, region: str, worker: str, messages: list[dict[str, Any]]) -> None:
        begin_s = time.monotonic()
        try:
            answer = await self._clients[region].delete_batch(
                self._urls[region], [message["ReceiptHandle"] for message in messages]
            )
        except (CallError, OSError) as error:
            for message in messages:
                self._failed("delete", region, worker, begin_s, error, message_id=message["MessageId"])
            return
        for entry in answer.get("Successful", []):
            message = messages[int(entry["Id"])]
            self._undeleted -= 1
            self._record("delete", region, worker, begin_s, message_id=message["MessageId"], body=message["Body"])
        for entry in answer.get("Failed", []):
            message_id = messages[int(entry["Id"])]["MessageId"]
            self._failed("delete", region, worker, begin_s, str(entry), message_id=message_id)

    # --- history ---------------------------------------------------------------------------------------------------

    def _record(
        self, kind: Any, region: str, worker: str, begin_s: float, outcome: Outcome = "ok", **more: Any
    ) -> None:
        end_s = time.monotonic()
        self.recorder.add(Operation(kind, worker, region, self._queue, begin_s, end_s, outcome, **more))

    def _failed(self, kind: str, region: str, worker: str, begin_s: float, error: object, **more: Any) -> None:
        self.errors.append(f"{kind} at {region}: {type(error).__name__} {error}")
        self._record(kind, region, worker, begin_s, "unknown", error=str(error), **more)
