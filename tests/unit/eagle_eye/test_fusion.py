"""What explains what."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.detect.base import Finding
from sternpost_eagle_eye.fusion import Fusion


def found(kind, worker=None, confidence=0.9):
    return Finding(kind, worker, confidence, False, "evidence")


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        (found("hardware", 1), found("hang", 1)),
        (found("hardware", 1), found("worker-gone", 1)),
        (found("hardware", 1), found("slow", 2)),
        (found("worker-gone", 1), found("worker-gone", 2)),
        (found("worker-gone", 1), found("hang")),
        (found("storage-stall"), found("worker-gone", 3)),
        (found("hang", 1), found("hang", 2)),
        (found("slow", 1), found("data-stall")),
    ],
)
def test_a_consequence_is_not_told(cause, consequence):
    fusion = Fusion()
    assert fusion.told([cause], 10.0, 9.0) == [cause]
    assert fusion.told([cause, consequence], 20.0, 9.0) == [cause]
    assert fusion.told([consequence], 21.0, 9.0) == []


def test_what_was_there_before_stays():
    fusion = Fusion()
    slow, broken = found("slow", 1), found("hardware", 1)
    assert fusion.told([slow], 10.0, 9.0) == [slow]
    assert fusion.told([slow, broken], 20.0, 19.0) == [broken, slow]


def test_a_job_that_gets_on_has_no_explanation_any_more():
    fusion = Fusion()
    gone, slow = found("worker-gone", 1), found("slow", 1)
    fusion.told([gone], 10.0, 9.0)
    assert fusion.told([slow], 14.0, 13.0) == []
    assert fusion.told([slow], 16.0, 15.0) == [slow]


def test_a_guess_explains_nothing():
    fusion = Fusion()
    guess, hang = found("worker-gone", 1, 0.5), found("hang")
    assert fusion.told([guess, hang], 10.0, 9.0) == [guess, hang]


def test_lost_together_is_told_together():
    fusion = Fusion()
    both = [found("worker-gone", 1), found("worker-gone", 2)]
    assert fusion.told(both, 10.0, 9.0) == both
    assert fusion.told(both, 11.0, 9.0) == both


def test_a_loss_is_told_beside_anything():
    fusion = Fusion()
    both = [found("hardware", 1), found("loss")]
    assert fusion.told(both, 10.0, 9.0) == both
