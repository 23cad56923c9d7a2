"""boto3 as it is today, the last botocore with the Query protocol, and aiobotocore."""

from __future__ import annotations

import contextlib
import json

import boto3
import pytest

from .conftest import HERE, Clients, run
from .story import story, tell

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


def test_boto3(endpoint: str, queues: tuple[str, str]) -> None:
    client = boto3.session.Session(
        aws_access_key_id="conformance", aws_secret_access_key="conformance", region_name="us-east-1"
    ).client("sqs", endpoint_url=endpoint)
    with contextlib.closing(client):
        assert client.meta.service_model.metadata["protocol"] == "json"
        assert tell(client, story(*queues)) > 30


@pytest.mark.parametrize(("name", "protocol"), [("botocore-query", "query"), ("aiobotocore", "json")])
def test_botocore(clients: Clients, endpoint: str, queues: tuple[str, str], name: str, protocol: str) -> None:
    python, environment = clients.python(name)
    report = json.loads(run([*python, str(HERE / "run_botocore.py"), endpoint, *queues], environment))
    assert report["protocol"] == protocol
    assert report["calls"] > 30
    if name == "botocore-query":
        assert report["version"] == "1.31.80"
