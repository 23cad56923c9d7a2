"""wrk as the client: single sends, driven by C, so that the client's cost does not count."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from typing import Any

import msgspec

from benchmarks.client import AUTHORIZATION, SqsClient

_SCRIPT = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["X-Amz-Target"] = "AmazonSQS.SendMessage"
wrk.headers["Content-Type"] = "application/x-amz-json-1.0"
wrk.headers["X-Amz-Date"] = "20260101T000000Z"
wrk.headers["Authorization"] = "{authorization}"
"""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def installed() -> bool:
    return shutil.which("wrk") is not None


async def send(endpoint: str, seconds: int, connections: int, size: int) -> dict[str, Any]:
    """Sends messages to a queue of its own. Raises RuntimeError where requests failed."""
    async with SqsClient(endpoint, 1) as client:
        url = await client.create_queue("bench-wrk")
        await client.send(url, "x")
    body = msgspec.json.encode({"QueueUrl": url, "MessageBody": "x" * size}).decode()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(body=body, authorization=AUTHORIZATION))
        script.flush()
        process = await asyncio.create_subprocess_exec(
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script.name, endpoint,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
    text = output.decode()
    if "Non-2xx" in text:
        raise RuntimeError(f"requests failed: {text}")
    count = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    assert count, text
    assert rate, text
    return {
        "messages": int(count[1]),
        "per_second": float(rate[1]),
        "p50_ms": _milliseconds(text, 50),
        "p99_ms": _milliseconds(text, 99),
    }


def _milliseconds(text: str, share: int) -> float:
    found = re.search(rf"{share}% +([\d.]+)(us|ms|s)", text)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
