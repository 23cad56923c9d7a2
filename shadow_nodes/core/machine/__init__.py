"""The queue state machine: pure, deterministic, in memory. See ``machine.py``."""

from shadow_nodes.core.machine.machine import Machine
from shadow_nodes.core.machine.rows import Kind

__all__ = ["Kind", "Machine"]
