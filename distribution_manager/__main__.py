"""``python -m distribution_manager``: the command ``shadowq``, where no script is installed."""

from __future__ import annotations

import sys

from distribution_manager.cli import main

if __name__ == "__main__":
    sys.exit(main())
