"""The AWS SDK for JavaScript, version 3, from npm."""

from __future__ import annotations

import json

import pytest

from .conftest import Clients, run

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


def test_javascript(clients: Clients, endpoint: str, queues: tuple[str, str]) -> None:
    folder = clients.javascript()
    report = json.loads(run(["node", "client.mjs", endpoint, *queues], clients.environment(), folder))
    assert report["version"].startswith("3.")
    assert report["calls"] > 25
