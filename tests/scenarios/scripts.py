"""Reading, running and rewriting scenario scripts: plain text, so that a change of behaviour is a diff to be read.

A script is blocks with an empty line between: comments, commands (``#`` and anything else), then ``----`` and what came
of the commands. A block without ``----`` is a comment.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.scenarios.language import Script

HERE = Path(__file__).parent
SEPARATOR = "----"


def scripts() -> list[Path]:
    return sorted(HERE.glob("*.txt"))


def replay(text: str) -> str:
    """The script as it should read: its commands, and what comes of them now."""
    blocks = []
    with ExitStack() as stack:
        script = Script(stack)
        for block in text.strip("\n").split("\n\n"):
            asked = block.partition(f"\n{SEPARATOR}")[0]
            commands = [line for line in asked.splitlines() if line and not line.startswith("#")]
            if not commands:
                blocks.append(asked)
                continue
            said = [script.execute(line) for line in commands]
            shown = [lines for lines in said[:-1] if lines != "ok"] + said[-1:]
            blocks.append("\n".join([asked, SEPARATOR, *shown]))
    return "\n\n".join(blocks) + "\n"
