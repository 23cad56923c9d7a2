"""What commands that wait for processes have in common: for how long, and what they say meanwhile."""

from __future__ import annotations

import argparse
import sys

from distribution_manager.drills.local import READY_TIMEOUT_S


def add_patience(command: argparse.ArgumentParser) -> None:
    """``--wait-s``, of commands that wait for processes to be ready."""
    command.add_argument(
        "--wait-s",
        type=_seconds,
        default=READY_TIMEOUT_S,
        metavar="N",
        help=f"how long a process may take that does not go on loading its data (default: {READY_TIMEOUT_S:.0f})",
    )


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of seconds from 1 on")
    return float(text)


def tell(text: str) -> None:
    """A line for people, beside the output."""
    print(f"shadowq: {text}", file=sys.stderr, flush=True)
