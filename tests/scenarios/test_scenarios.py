"""Every scenario script says what the code does. After a change: ``python -m tests.scenarios --rewrite``, and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.scripts import replay, scripts


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    expected = path.read_text()
    assert "BROKEN" not in expected
    assert replay(expected) == expected
