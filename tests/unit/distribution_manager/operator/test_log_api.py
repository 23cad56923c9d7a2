"""What may be asked of the log."""

from __future__ import annotations

from typing import Any

import pytest

from distribution_manager.operator.log_api import locate
from distribution_manager.operator.log_reader import MistakeError


@pytest.mark.parametrize("name", ["from", "to", "since_ms", "until_ms", "after_index"])
@pytest.mark.parametrize("text", ["-1", "x", "²", "9" * 19, "9" * 5_000])
async def test_numbers_that_are_none(name: str, text: str) -> None:
    """Before any node is asked."""
    nobody: Any = None
    with pytest.raises(MistakeError, match=f"{name}: .* is not a whole number"):
        await locate(nobody, {name: text})
