"""Real text through real processes: 20,000 lines of Python's own library, sent in one region, received in another."""

from __future__ import annotations

import contextlib
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from distribution_manager.drills import faults
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.workload import make_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MESSAGES = 20_000
BATCH = 10
THREADS = 4


def corpus() -> Iterator[str]:
    """Lines of the standard library's sources that are not empty, in a fixed order, repeats included."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for line in path.read_text(errors="ignore").splitlines():
            if line.strip() and line.isprintable():
                yield line


def test_each_line_comes_out_once(tmp_path: Path) -> None:
    lines = list(islice(corpus(), MESSAGES))
    assert len(lines) == MESSAGES
    with LocalCluster(tmp_path, port=0) as cluster:
        here, there = list(cluster.endpoints.values())[:2]
        with contextlib.closing(make_client(here)) as client:
            client.create_queue(QueueName="corpus", Attributes={"VisibilityTimeout": "120"})
        send(here, lines)
        received, ids = receive_and_delete(there)
        assert received == Counter(lines)
        assert len(ids) == len(set(ids)) == MESSAGES
        with contextlib.closing(make_client(there)) as client:
            url = client.get_queue_url(QueueName="corpus")["QueueUrl"]
            assert "Messages" not in client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        assert not faults.differing(faults.settled_digests(cluster, 3), 3)


def send(endpoint: str, lines: list[str]) -> None:
    client = make_client(endpoint, max_pool_connections=THREADS)
    url = client.get_queue_url(QueueName="corpus")["QueueUrl"]

    def send_batch(start: int) -> None:
        entries = [{"Id": str(n), "MessageBody": line} for n, line in enumerate(lines[start : start + BATCH])]
        answer = client.send_message_batch(QueueUrl=url, Entries=entries)
        assert len(answer["Successful"]) == len(entries), answer.get("Failed")

    with contextlib.closing(client), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(send_batch, range(0, len(lines), BATCH)))


def receive_and_delete(endpoint: str) -> tuple[Counter[str], list[str]]:
    """Until all have come and an empty answer has shown that no more do: bodies with their counts, and message ids."""
    client = make_client(endpoint, max_pool_connections=THREADS)
    url = client.get_queue_url(QueueName="corpus")["QueueUrl"]
    bodies: Counter[str] = Counter()
    ids: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            messages = client.receive_message(QueueUrl=url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1).get(
                "Messages"
            )
            if not messages:
                return
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            answer = client.delete_message_batch(QueueUrl=url, Entries=entries)
            assert len(answer["Successful"]) == len(entries), answer.get("Failed")
            with lock:
                bodies.update(message["Body"] for message in messages)
                ids.extend(message["MessageId"] for message in messages)

    with contextlib.closing(client), ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work) for _ in range(THREADS)]:
            future.result()
    return bodies, ids
