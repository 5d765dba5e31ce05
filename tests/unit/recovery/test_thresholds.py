"""Thresholds of the detectors that are changed while the job runs."""

from __future__ import annotations

from recovery_scene import Scene, assignment, written

from sternpost_operator.resources.attempt import AttemptAction
from sternpost_operator.resources.training_job import EagleEyePolicy, SlowPolicy


def test_changed_thresholds_reach_the_attempt_and_nothing_restarts():
    scene = Scene(workers=2, spares=0).running(10)
    before = scene.attempt
    assert before.eagle_eye == EagleEyePolicy()
    assert scene.plan().actions == ()
    wanted = EagleEyePolicy(slow=SlowPolicy(seconds=40))
    scene.spec(eagle_eye=wanted).later(1)
    told = written(scene.plan())
    assert (told.id, told.action, told.eagle_eye) == (before.id, AttemptAction.RUN, wanted)
    assert told.issued_at > before.issued_at
    assert assignment(told) == assignment(before)
    assert scene.plan().actions == ()
    assert scene.status.attempts == []


def test_an_attempt_of_an_operator_that_knew_no_such_thing_is_completed():
    scene = Scene(workers=2, spares=0).running(10)
    scene.attempt = scene.attempt.model_copy(update={"eagle_eye": None})
    assert written(scene.later(1).plan()).eagle_eye == EagleEyePolicy()
    assert scene.plan().actions == ()
