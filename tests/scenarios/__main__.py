"""python -m tests.scenarios [--rewrite] [NAME ...]: runs scenario scripts, or writes what comes of them into them."""

from __future__ import annotations

import argparse
import difflib
import sys

from tests.scenarios.scripts import replay, scripts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the scripts' names")
    parser.add_argument("--rewrite", action="store_true", help="review the diff: an expectation is a claim")
    arguments = parser.parse_args()
    differing = 0
    for path in scripts():
        if arguments.names and not any(name in path.name for name in arguments.names):
            continue
        before = path.read_text()
        try:
            after = replay(before)
        except Exception as error:
            after = f"it raised {error!r}\n"
            if arguments.rewrite:
                raise
        if before == after:
            continue
        differing += 1
        if arguments.rewrite:
            path.write_text(after)
            print(f"{path.name}: rewritten")
        else:
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), after.splitlines(True), path.name, "as it is now")
            )
    return 1 if differing and not arguments.rewrite else 0


if __name__ == "__main__":
    raise SystemExit(main())
