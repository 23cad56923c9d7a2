"""Drills: a cluster of real processes on one machine, faults, work, and checkers that judge what was seen."""
