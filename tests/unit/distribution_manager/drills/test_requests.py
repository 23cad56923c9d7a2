"""What one process leaves for another to do."""

from __future__ import annotations

from pathlib import Path

from distribution_manager.drills.requests import FOLDER, Request, pending


def test_requests_come_back_as_they_were_left(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    requests = [Request("add", "eu-west-1"), Request("restart", "node-a.b")]
    for request in requests:
        request.path(tmp_path).touch()
    (tmp_path / FOLDER / "stranger").touch()
    assert pending(tmp_path) == requests
    assert not (tmp_path / FOLDER / "stranger").exists()
