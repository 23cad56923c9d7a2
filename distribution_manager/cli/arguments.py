"""What the commands' arguments and errors have in common.

Invariant: an error is one line on standard error that says what to do, and a status other than 0; never a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

DATA_DEFAULT: Final = Path(".shadowq")
FAILED: Final = 1
MISUSED: Final = 2


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would print the usage too."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_local_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """A command on the local cluster of ``--data``. ``commands``: argparse's, of ``shadowq``."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    command.add_argument(
        "--data", type=Path, default=DATA_DEFAULT, metavar="DIR", help=f"data directory (default: {DATA_DEFAULT})"
    )
    return command


def fail(message: str) -> int:
    """The exit status, having said why."""
    print(f"shadowq: {message}", file=sys.stderr)
    return FAILED
