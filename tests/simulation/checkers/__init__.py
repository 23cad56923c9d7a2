"""Judges of histories. Each is a pure function from a History to what it found: (check, text) each.

They know nothing of the simulation nor of ShadowQ's code: a history of anything that speaks SQS will do.
"""

from __future__ import annotations

from tests.simulation.checkers.deadletters import check_dead_letters
from tests.simulation.checkers.duplicates import check_deduplication, check_duplicates
from tests.simulation.checkers.expiry import check_expiry
from tests.simulation.checkers.handles import check_handles
from tests.simulation.checkers.holders import check_holders
from tests.simulation.checkers.loss import check_lost, check_resurrected, check_unexpected
from tests.simulation.checkers.order import check_order
from tests.simulation.checkers.waiting import check_empty_answers
from tests.simulation.history import History

Finding = tuple[str, str]
CHECKS = (
    check_lost,
    check_unexpected,
    check_resurrected,
    check_holders,
    check_handles,
    check_order,
    check_deduplication,
    check_duplicates,
    check_dead_letters,
    check_empty_answers,
    check_expiry,
)


def check_all(history: History) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(history)]


def verdict(history: History) -> str:
    """invalid: a promise was broken. unknown: the queues were not read to their end, so loss cannot be told."""
    if check_all(history):
        return "invalid"
    return "valid" if history.drained else "unknown"
