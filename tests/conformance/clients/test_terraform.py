"""Terraform's AWS provider, where this machine carries one: aws_sqs_queue made, found unchanged, changed, destroyed.

The provider asks over and over until attributes and deletions have spread: minutes, most of them asleep. So this has a
marker, and a target of the Makefile, to itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.conformance.conftest import Bench

from .conftest import HERE, Clients, run

pytestmark = [pytest.mark.terraform, pytest.mark.timeout(900)]

PLUGINS = ("/opt/tf-plugins", "/usr/share/terraform/plugins", "/usr/local/share/terraform/plugins")
PROVIDER = "registry.terraform.io/hashicorp/aws"


def plugins() -> str:
    """A directory of plugins with the provider, or a skip: it is too large to be fetched for a test."""
    if shutil.which("terraform") is None:
        pytest.skip("there is no terraform on this machine")
    for folder in (*PLUGINS, str(Path.home() / ".terraform.d/plugins")):
        if (Path(folder) / PROVIDER).is_dir():
            return folder
    pytest.skip(f"there is no {PROVIDER} in {', '.join(PLUGINS)}")


def test_queues(clients: Clients, benches: dict[str, Bench], tmp_path: Path) -> None:
    found = plugins()
    bench = benches["json"]
    dead = bench.queue()
    prefix = f"{dead.rpartition('/')[2]}-made"
    shutil.copy(HERE / "terraform" / "main.tf", tmp_path)
    arn = bench.arn(dead)
    environment = clients.environment({"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_INPUT": "0"})

    def terraform(*arguments: str) -> str:
        return run(["terraform", *arguments], environment, tmp_path)

    def settings(visibility: int) -> list[str]:
        values = {"endpoint": bench.endpoint, "prefix": prefix, "dead_letters": arn, "visibility": visibility}
        return ["-no-color", *(f"-var={name}={value}" for name, value in values.items())]

    terraform("init", f"-plugin-dir={found}", "-no-color")
    terraform("apply", "-auto-approve", *settings(45))
    # nothing to do: all that was asked for is there, as it was asked for
    assert "No changes." in terraform("plan", "-detailed-exitcode", *settings(45))
    url = json.loads(terraform("output", "-json"))["url"]["value"]
    held = bench.attributes(url)
    assert (held["VisibilityTimeout"], held["ShadowFactor"]) == ("45", "1")
    terraform("apply", "-auto-approve", *settings(50))
    assert bench.attributes(url, "VisibilityTimeout") == {"VisibilityTimeout": "50"}
    terraform("destroy", "-auto-approve", *settings(50))
    with pytest.raises(ClientError, match="NonExistentQueue"):
        bench.attributes(url)
