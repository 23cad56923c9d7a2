"""One cluster of real processes for all of tests/conformance, and boto3 in both protocols at one of its managers.

Model: queues are created through the first region's manager, which so becomes their owner; everything else goes to the
second's, which forwards it. ``bench`` makes queues, and knows their URLs as the second manager gives them.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config

from distribution_manager.drills import faults
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.state import ClusterState, Member

# with importlib mode, the root of the repository is not on the path
ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from tests.unit.distribution_manager.sqs.query_model import write_query_model  # noqa: E402

OWNER_REGION, CLIENT_REGION = "us-east-1", "eu-west-1"
PROTOCOLS = ("json", "query")
EVENTUALLY_S = 60.0
POLL_S = 0.1


class StrictCommands(Commands):
    """Managers that refuse a deleted queue's name as long as SQS does, which is off by default."""

    def manager(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        return [*super().manager(state, member, data_dir), "--name-reuse-s", "60"]


class Bench:
    """What tests work on. ``sqs``: boto3 at a manager that owns none of the queues. ``owner``: at the one that does."""

    names = (f"q{number}" for number in itertools.count())

    def __init__(self, cluster: LocalCluster, sqs: Any, owner: Any) -> None:
        self.cluster = cluster
        self.sqs = sqs
        self.owner = owner

    @property
    def endpoint(self) -> str:
        return self.cluster.endpoints[CLIENT_REGION]

    @property
    def protocol(self) -> str:
        return str(self.sqs.meta.service_model.metadata["protocol"])

    def queue(self, *, fifo: bool = False, tags: dict[str, str] | None = None, **attributes: object) -> str:
        """A new queue's URL at the manager that does not own it."""
        name = next(self.names) + (".fifo" if fifo else "")
        given = {key: str(value) for key, value in attributes.items()} | ({"FifoQueue": "true"} if fifo else {})
        self.owner.create_queue(QueueName=name, Attributes=given, tags=tags or {})
        return str(self.sqs.get_queue_url(QueueName=name)["QueueUrl"])

    def sent(self, url: str, body: str = "x", **parameters: Any) -> dict[str, Any]:
        """What SendMessage answered; a FIFO queue's message gets the group g."""
        if url.endswith(".fifo"):
            parameters = {"MessageGroupId": "g", "MessageDeduplicationId": next(self.names)} | parameters
        return dict(self.sqs.send_message(QueueUrl=url, MessageBody=body, **parameters))

    def received(self, url: str, **parameters: Any) -> dict[str, Any]:
        """The one message that comes within the long poll's time."""
        (message,) = self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, **parameters)["Messages"]
        return dict(message)

    def handle(self, url: str, **parameters: Any) -> str:
        """The receipt handle of a message sent and received for it."""
        self.sent(url)
        return str(self.received(url, **parameters)["ReceiptHandle"])

    def attributes(self, url: str, *names: str) -> dict[str, str]:
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names) or ["All"])
        return dict(answer.get("Attributes", {}))

    def arn(self, url: str) -> str:
        return self.attributes(url, "QueueArn")["QueueArn"]

    def owner_of(self, url: str) -> str:
        return faults.region_of(self.cluster, faults.owner_of(self.cluster, url.rpartition("/")[2]))


def eventually(holds: Callable[[], Any]) -> Any:
    """What ``holds`` returned, once that is true; for what reaches other managers by way of a watch."""
    deadline = time.monotonic() + EVENTUALLY_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(POLL_S)
    return found


def make_client(session: boto3.session.Session, endpoint: str) -> Any:
    """Without the SDK's own checks and retries: what the service says is what is looked at."""
    return session.client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="conformance",
        aws_secret_access_key="conformance",
        config=Config(retries={"max_attempts": 0}, parameter_validation=False, read_timeout=120),
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("conformance"), port=0, commands=StrictCommands()) as running:
        yield running


@pytest.fixture(scope="session")
def benches(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bench]]:
    """By protocol."""
    folder = tmp_path_factory.mktemp("botocore")
    write_query_model(folder)
    query = botocore.session.Session()
    query.set_config_variable("data_path", str(folder))
    sessions = {
        "json": boto3.session.Session(botocore_session=botocore.session.Session()),
        "query": boto3.session.Session(botocore_session=query),
    }
    with contextlib.ExitStack() as stack:

        def client(protocol: str, region: str) -> Any:
            return stack.enter_context(contextlib.closing(make_client(sessions[protocol], cluster.endpoints[region])))

        owner = client("json", OWNER_REGION)
        made = {protocol: Bench(cluster, client(protocol, CLIENT_REGION), owner) for protocol in PROTOCOLS}
        assert all(bench.protocol == protocol for protocol, bench in made.items())
        yield made


@pytest.fixture(params=PROTOCOLS)
def bench(benches: dict[str, Bench], request: pytest.FixtureRequest) -> Bench:
    return benches[request.param]
