"""The command line: ``shadowq`` and its commands, a module for each group of them."""

from __future__ import annotations

from collections.abc import Sequence

from distribution_manager.cli.arguments import fail

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    try:
        # takes half a second, in which Ctrl-C is as likely as later
        from distribution_manager.cli import program  # noqa: PLC0415

        return program.main(argv)
    except KeyboardInterrupt:
        return fail("interrupted")
