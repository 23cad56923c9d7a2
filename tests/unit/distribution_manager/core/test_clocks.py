"""What time several clocks agree on, where some are wrong and some answers were long on their way."""

from __future__ import annotations

from distribution_manager.core.clocks import ClockWatch, agreed_offset


def test_our_own_clock_where_all_agree_with_it() -> None:
    assert agreed_offset([(990, 1010), (995, 1005), (1000, 1000)], 1000) == 1000


def test_answers_that_were_late_say_little() -> None:
    """Two answers of three waited for a second: the median would be a second behind."""
    assert agreed_offset([(0, 1001), (-5, 1002), (1000, 1000)], 1000) == 1000


def test_our_own_clock_alone_is_not_believed() -> None:
    """Two replicas agree, and it does not: it says nothing about where between their answers the truth is."""
    assert agreed_offset([(990, 1010), (995, 1005), (61_000, 61_000)], 61_000) == 1000
    assert agreed_offset([(990, 1010), (995, 1005), (-59_000, -59_000)], -59_000) == 1000


def test_a_replica_alone_is_not_believed() -> None:
    assert agreed_offset([(61_000, 61_010), (995, 1005), (1000, 1000)], 1000) == 1000


def test_the_median_where_no_two_agree() -> None:
    assert agreed_offset([(0, 2), (100, 102), (500, 500)], 500) == 102


def test_a_late_answer_is_not_taken_at_its_middle_where_no_two_agree() -> None:
    """It was 2,400 ms on its way: any time in that is as near to the two others, and ours tells which."""
    assert agreed_offset([(60_000, 60_007), (160, 2_560), (-9, -9)], -9) == 160
    assert agreed_offset([(60_000, 60_007), (160, 2_560), (1_000, 1_000)], 1_000) == 1_000


def test_a_clock_is_known_as_closely_as_its_quickest_answer_and_drift_since() -> None:
    watch = ClockWatch()
    assert watch.heard(5_000, 0, 4) == (4_996, 5_000)
    assert watch.heard(6_000, 400, 1_002) == (4_998, 5_002), "a late answer adds what it excludes"
    assert watch.heard(7_900, 2_000, 3_400) == (4_993, 5_007), "drift, and an answer that says next to nothing"


def test_a_clock_that_has_been_set_is_believed_at_once() -> None:
    watch = ClockWatch()
    watch.heard(5_000, 0, 4)
    assert watch.heard(65_250, 250, 260) == (64_990, 65_000)
