"""Celery with kombu's SQS transport: a worker and a producer live through the death of the manager that owns the queue.

Both are attached to endpoints that survive. Every task that was accepted is run, and none is run twice.
A cluster of its own, since one of its managers is killed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from distribution_manager.drills import faults
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.workload import make_client

from .conftest import HERE, Clients

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

TASKS = 400
BEFORE = 100
QUEUE = "celery"
VISIBILITY_S = 600
"""As in celery_tasks.py. Nothing may come back by time alone."""
PATIENCE_S = 240
STOP_S = 60
POLL_S = 0.05


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("celery-cluster"), port=0) as running:
        yield running


@contextlib.contextmanager
def process(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Ends with a warm shutdown: tasks under way are finished."""
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environment, cwd=HERE, stdout=file, stderr=file) as child,
    ):
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def wait_for(holds: Callable[[], bool], what: str, *logs: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() >= deadline:
            pytest.fail(f"{what}\n" + "\n".join(log.read_text()[-5000:] for log in logs))
        time.sleep(POLL_S)


def test_no_task_is_lost_or_run_twice(clients: Clients, cluster: LocalCluster, tmp_path: Path) -> None:
    python, environment = clients.python("celery")
    owner, *others = cluster.endpoints.values()
    with contextlib.closing(make_client(owner)) as client:
        client.create_queue(QueueName=QUEUE, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
    record, produced, worked = (tmp_path / name for name in ("record", "producer.log", "worker.log"))
    record.touch()

    def environment_at(endpoint: str) -> dict[str, str]:
        broker = f"sqs://local:local@{endpoint.removeprefix('http://')}//"
        return {**environment, "BROKER": broker, "QUEUE": QUEUE, "RECORD": str(record)}

    def done() -> list[int]:
        return [int(line) for line in record.read_text().splitlines()]

    worker = [*python, "-m", "celery", "--app", "celery_tasks", "worker", "--concurrency", "2", "--loglevel", "info"]
    producer = [*python, "celery_tasks.py", str(TASKS)]
    with (
        process(worker, environment_at(others[0]), worked),
        process(producer, environment_at(others[1]), produced) as producing,
    ):
        wait_for(lambda: len(done()) >= BEFORE, "hardly any task was run", worked, produced)
        name = faults.owner_of(cluster, QUEUE)
        assert cluster.endpoints[cluster.member(name).region] == owner
        cluster.kill(name)
        killed_at = len(done())
        wait_for(lambda: producing.poll() is not None, "the producer did not end", produced)
        assert producing.returncode == 0, produced.read_text()[-5000:]
        wait_for(lambda: len(set(done())) >= TASKS, f"{len(set(done()))} of {TASKS} tasks were run", worked)
        assert killed_at < TASKS, "the owner outlived the work"
        assert faults.owner_of(cluster, QUEUE) != name
    with contextlib.closing(make_client(others[0])) as client:
        url = client.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        left = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert left == dict.fromkeys(names, "0"), worked.read_text()[-5000:]
    assert Counter(done()) == Counter(range(TASKS))
