"""What other processes ask of the one that runs a local cluster, whose children its processes are: files in
DIR/requests.

Model: a request is an empty file, ACTION.NAME; it is gone once it has been carried out, or could not be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

Action = Literal["restart", "add"]
FOLDER: Final = "requests"


class Request(NamedTuple):
    """``name``: of the member to restart, or of the region to add."""

    action: Action
    name: str

    def path(self, data_dir: Path) -> Path:
        return data_dir / FOLDER / f"{self.action}.{self.name}"


def pending(data_dir: Path) -> list[Request]:
    """What nobody knows is thrown away."""
    found = []
    for path in sorted((data_dir / FOLDER).iterdir()):
        action, _, name = path.name.partition(".")
        if action in get_args(Action):
            found.append(Request("add" if action == "add" else "restart", name))
        else:
            path.unlink()
    return found
