"""The command line: ``shadowq`` and its commands, a module for each group of them."""

from distribution_manager.cli.program import build_parser, main

__all__ = ["build_parser", "main"]
