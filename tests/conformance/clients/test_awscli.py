"""The aws command line, from PyPI (version 1), as a script would use it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Clients, run

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


def test_aws_command(clients: Clients, endpoint: str, queues: tuple[str, str]) -> None:
    python, environment = clients.python("awscli")

    def aws(*arguments: str) -> Any:
        command = [*python, "-m", "awscli", "--endpoint-url", endpoint, "--output", "json", "sqs", *arguments]
        return json.loads(run(command, environment) or "null")

    standard, _ = queues
    url = aws("get-queue-url", "--queue-name", standard)["QueueUrl"]
    attributes = json.dumps({"text": {"DataType": "String", "StringValue": "é"}})
    sent = aws("send-message", "--queue-url", url, "--message-body", "é", "--message-attributes", attributes)
    received = aws(
        *("receive-message", "--queue-url", url, "--wait-time-seconds", "20"),
        *("--message-attribute-names", "All", "--attribute-names", "All"),
    )
    (message,) = received["Messages"]
    assert (message["Body"], message["MessageId"]) == ("é", sent["MessageId"])
    assert message["MessageAttributes"] == json.loads(attributes)
    aws("delete-message", "--queue-url", url, "--receipt-handle", message["ReceiptHandle"])

    mine = aws(
        *("create-queue", "--queue-name", f"{standard}-mine.fifo"),
        *("--attributes", "FifoQueue=true,ContentBasedDeduplication=true", "--tags", "team=a"),
    )["QueueUrl"]
    aws("set-queue-attributes", "--queue-url", mine, "--attributes", "VisibilityTimeout=45")
    held = aws("get-queue-attributes", "--queue-url", mine, "--attribute-names", "All")["Attributes"]
    assert (held["VisibilityTimeout"], held["ContentBasedDeduplication"]) == ("45", "true")
    # it asks for one page after the other by itself
    listed = aws("list-queues", "--queue-name-prefix", standard, "--page-size", "1")["QueueUrls"]
    assert listed == [url, mine]
    aws("delete-queue", "--queue-url", mine)


def test_aws_command_refused(clients: Clients, endpoint: str) -> None:
    python, environment = clients.python("awscli")
    with pytest.raises(AssertionError, match="NonExistentQueue"):
        run(
            [*python, "-m", "awscli", "--endpoint-url", endpoint, "sqs", "get-queue-url", "--queue-name", "none"],
            environment,
        )
