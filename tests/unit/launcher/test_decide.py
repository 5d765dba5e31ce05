"""Decisions about attempts, against every order of messages, crashes and exits."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_launcher.attempt_file import Action, Attempt
from sternpost_launcher.decide import Known, Own, Role, Step, accepts, decide


def attempt(number: int, action: Action) -> Attempt:
    return Attempt(number, f"{number}-id", action)


@dataclass
class Model:
    """A launcher that does what it is told, and nothing else."""

    known: Known | None = None
    attempt: Attempt | None = None
    begun: str | None = None
    alive: str | None = None
    """Id of the attempt whose ranks are alive."""
    ran: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    exited: bool = False

    def receive(self, message: Attempt) -> None:
        candidate = Known(message.number, message.id, message.action)
        if accepts(self.known, candidate):
            self.known, self.attempt = candidate, message
            self.numbers.append(message.number)

    def act(self, role: Role) -> Step:
        step = decide(self.attempt, role, Own(self.begun, self.alive is not None))
        if step is Step.START:
            assert self.attempt is not None
            assert self.attempt.action is Action.RUN
            assert role is Role.WORKER
            assert self.alive is None, "two attempts at once"
            assert self.attempt.id not in self.ran, "an attempt twice"
            self.ran.append(self.attempt.id)
            self.begun = self.alive = self.attempt.id
        elif step is Step.END:
            self.alive = None
        elif step is Step.EXIT:
            assert self.alive is None
            self.exited = True
        elif step in (Step.WAIT, Step.IDLE):
            assert self.alive is None
        return step


messages = st.builds(attempt, st.integers(1, 5), st.sampled_from(Action))
events = st.one_of(messages, st.sampled_from(Role), st.just("rank ends"), st.just("launcher is killed"))


@settings(deadline=None, max_examples=300)
@given(st.lists(events, max_size=40), st.sampled_from(Role))
def test_no_order_of_events_breaks_an_invariant(history, last_role):
    model = Model()
    role = Role.WORKER
    for event in history:
        if isinstance(event, Attempt):
            model.receive(event)
        elif isinstance(event, Role):
            role = event
        elif event == "rank ends":
            model.alive = None
        else:
            # The successor knows what was begun, has ended what outlived the launcher, and reads the file again.
            number = 0 if model.begun is None else int(model.begun.split("-")[0])
            model = Model(
                known=None if model.begun is None else Known(number, model.begun, Action.RUN),
                begun=model.begun,
                ran=model.ran,
            )
        model.act(role)
        if model.exited:
            return
    assert model.numbers == sorted(model.numbers)
    # Left alone, it comes to rest, in the state that the attempt asks for.
    steps = [model.act(last_role) for _ in range(4)]
    assert steps[2] is steps[3]
    assert steps[3] not in (Step.START, Step.END)
    if model.attempt is not None and model.alive is not None:
        assert model.alive == model.attempt.id or model.attempt.action is Action.HOLD
        assert model.attempt.action is not Action.STOP


def test_what_may_replace_what():
    run = Known(3, "3-id", Action.RUN)
    assert accepts(None, run)
    assert accepts(run, Known(4, "4-id", Action.HOLD))
    assert accepts(run, Known(3, "3-id", Action.STOP))
    assert not accepts(run, Known(3, "3-id", Action.HOLD))
    assert not accepts(run, Known(2, "2-id", Action.RUN))
    assert not accepts(run, Known(3, "3-other", Action.RUN))


def test_a_failed_attempt_is_not_begun_again():
    assert decide(attempt(1, Action.RUN), Role.WORKER, Own("1-id", alive=False)) is Step.KEEP


def test_a_hold_ends_older_ranks_and_run_follows():
    hold, run = attempt(2, Action.HOLD), attempt(2, Action.RUN)
    assert decide(hold, Role.ABSENT, Own("1-id", alive=True)) is Step.END
    assert decide(hold, Role.ABSENT, Own("1-id", alive=False)) is Step.WAIT
    assert decide(run, Role.WORKER, Own("1-id", alive=False)) is Step.START
