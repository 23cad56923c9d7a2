"""What checking signatures costs: the check alone, and requests per second with and without it.

    python benchmarks/signatures.py [seconds]

The check alone is timed on requests as boto3 signs them: the best of many short runs, which others disturb least. The
requests run over one process and loopback: the SQS endpoint on an answer that costs nothing (GetQueueUrl), asked by raw
sockets that repeat one signed request.
"""

from __future__ import annotations

import asyncio
import sys
import time
import timeit
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

import botocore.auth
import uvloop
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from distribution_manager.core.metadata import AccessKeyRecord, QueueMetadata
from distribution_manager.sqs.access.gate import SignatureGate
from distribution_manager.sqs.access.keys import KeyRing
from distribution_manager.sqs.config import OpenGate, SqsConfig
from distribution_manager.sqs.handler import make_endpoint, make_server
from distribution_manager.sqs.http.messages import Headers, Request

KEY_ID, SECRET = "AKIABENCH", "a-secret-of-the-benchmark"
CONNECTIONS = 16
ROUNDS = 1_000
REPEATS = 30
ROUNDS_OF_SERVING = 3
QUEUE = QueueMetadata(queue_id="0" * 16, name="orders")
POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"sqs:*",'
    '"Resource":"arn:aws:sqs:us-east-1:000000000000:orders","Condition":{"Bool":{"aws:SecureTransport":"true"}}}]}'
)


class Backend:
    def find_queue(self, name: str) -> QueueMetadata:
        return QUEUE


def make_gate() -> SignatureGate:
    record = AccessKeyRecord(access_key_id=KEY_ID, user="bench", secret=SECRET, requests_per_second=1_000_000)
    config = SqsConfig()
    ring = KeyRing({KEY_ID: record}.get, config.account, now_s=time.monotonic)
    return SignatureGate(config, ring)


def signed(operation: str, body: bytes) -> dict[str, str]:
    """Headers as boto3 sends them."""
    headers = {
        "X-Amz-Target": f"AmazonSQS.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "User-Agent": "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux lang/python#3.11.7",
        "x-amzn-query-mode": "true",
    }
    request = AWSRequest("POST", "http://127.0.0.1:9324/", headers, body)
    botocore.auth.SigV4Auth(Credentials(KEY_ID, SECRET), "sqs", "us-east-1").add_auth(request)
    return {"Host": "127.0.0.1:9324", **{name: str(value) for name, value in request.headers.items()}}


def best_us(work: Callable[[], object]) -> float:
    """Microseconds."""
    return min(timeit.repeat(work, number=ROUNDS, repeat=REPEATS)) / ROUNDS * 1e6


def time_check() -> None:
    gate: Any = make_gate()
    for size in (100, 1_000, 10_000, 262_144):
        body = b'{"QueueUrl": "http://127.0.0.1:9324/000000000000/orders", "MessageBody": "' + b"x" * size + b'"}'
        fields = [(name.encode(), value.encode()) for name, value in signed("SendMessage", body).items()]
        request = Request("POST", "/", Headers(fields))
        print(f"authorize, body of {size:>7,} bytes: {best_us(partial(gate.authorize, request, body)):6.1f} µs")
        print(f"    of it, SHA-256 of the body:   {best_us(partial(sha256, body)):6.1f} µs")
    caller = gate.authorize(request, body)
    with_policy = QueueMetadata(queue_id="1", name="orders", attributes={"Policy": POLICY})
    for name, queue in (("no policy", QUEUE), ("a policy with a condition", with_policy)):
        print(f"permit, {name}: {best_us(partial(gate.permit, caller, 'SendMessage', 'orders', queue)):6.1f} µs")


async def serve_for(gate: Any, seconds: float) -> tuple[float, float]:
    """(requests per second, processor time of one in µs), the client's part included."""
    loop = asyncio.get_running_loop()
    server = make_server(make_endpoint(Backend(), SqsConfig(), gate))  # type: ignore[arg-type]
    listener = await loop.create_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    body = b'{"QueueName": "orders"}'
    headers = signed("GetQueueUrl", body) | {"Content-Length": str(len(body))}
    request = b"POST / HTTP/1.1\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n" + body
    count = 0
    processor_s = time.process_time()
    deadline = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < deadline:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            count += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    listener.close()
    return count / seconds, (time.process_time() - processor_s) / count * 1e6


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    time_check()
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS_OF_SERVING):
        for name, gate in (("without signatures", OpenGate("000000000000")), ("with signatures", make_gate())):
            found.setdefault(name, []).append(uvloop.run(serve_for(gate, seconds)))
    for name, runs in found.items():
        rates = ", ".join(f"{rate:,.0f}" for rate, _ in runs)
        print(f"{name}: {rates} requests/s; at best {min(cost for _, cost in runs):.0f} µs of processor each")


if __name__ == "__main__":
    main()
