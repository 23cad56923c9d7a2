"""python run_botocore.py ENDPOINT STANDARD FIFO: tells the story to the botocore that is there, or to aiobotocore."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import botocore
import botocore.session

sys.path.insert(0, str(Path(__file__).parent))

from story import story, tell, tell_async


def main() -> None:
    endpoint, standard, fifo = sys.argv[1:]
    try:
        from aiobotocore.session import get_session
    except ImportError:
        client = botocore.session.Session().create_client("sqs", endpoint_url=endpoint)
        protocol = client.meta.service_model.metadata["protocol"]
        calls = tell(client, story(standard, fifo))
    else:
        protocol, calls = asyncio.run(asynchronously(get_session(), endpoint, story(standard, fifo)))
    print(json.dumps({"version": botocore.__version__, "protocol": protocol, "calls": calls}))


async def asynchronously(session: Any, endpoint: str, told: Any) -> tuple[str, int]:
    async with session.create_client("sqs", endpoint_url=endpoint) as client:
        return client.meta.service_model.metadata["protocol"], await tell_async(client, told)


if __name__ == "__main__":
    main()
