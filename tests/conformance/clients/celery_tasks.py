"""The Celery application of test_celery.py, for its worker and its producer.

    python -m celery --app celery_tasks worker
    python celery_tasks.py COUNT     sends that many tasks

Each task appends a line with its number to the file RECORD: one write, so lines of several processes do not mix.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery import Celery

VISIBILITY_S = 600

app = Celery("celery_tasks", broker=os.environ["BROKER"])
app.conf.broker_transport_options = {
    "is_secure": False,
    "region": "us-east-1",
    "visibility_timeout": VISIBILITY_S,
    "wait_time_seconds": 5,
    "polling_interval": 0.05,
}
app.conf.worker_prefetch_multiplier = 10
app.conf.task_default_queue = os.environ["QUEUE"]


@app.task
def record(number: int) -> None:
    file = os.open(Path(os.environ["RECORD"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{number}\n".encode())
    finally:
        os.close(file)


def main() -> None:
    for number in range(int(sys.argv[1])):
        record.delay(number)
        print(number, flush=True)


if __name__ == "__main__":
    main()
