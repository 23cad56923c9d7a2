"""python -m tests.simulation: see cli.py."""

from tests.simulation.cli import main

raise SystemExit(main())
