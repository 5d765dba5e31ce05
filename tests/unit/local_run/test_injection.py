from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.local_run.injection import (
    EXAMPLES,
    FaultKind,
    Injection,
    InjectionError,
    Part,
    due,
    parse,
    parse_all,
)

NODES = ("node-0", "node-1", "node-2")


@pytest.mark.parametrize("kind", list(FaultKind))
def test_examples_are_valid(kind: FaultKind) -> None:
    assert parse(EXAMPLES[kind], NODES).kind is kind


def test_fields_are_read() -> None:
    slow = parse("slow:worker=1,step=80,factor=2.5", NODES)
    assert (slow.worker, slow.step, slow.factor, slow.after, slow.node) == (1, 80, 2.5, None, None)
    kill = parse("kill: node=node-1 , after=1.5", NODES)
    assert (kill.node, kill.after, kill.step) == ("node-1", 1.5, None)
    assert parse("exit:rank=3,step=0,signal=15", NODES).signal == 15
    assert parse("exit:worker=3,step=0", NODES).signal == 9


def test_a_part_in_a_pod_is_worker_0s_unless_told_otherwise_and_others_have_no_worker() -> None:
    assert parse("crash:part=launcher,step=1", NODES).worker == 0
    assert parse("crash:part=eagle-eye,worker=2,step=1", NODES).worker == 2
    assert parse("crash:part=operator,worker=2,step=1", NODES).worker is None


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("", "kill, slow, hang, exit, crash"),
        ("explode:node=node-1,step=1", "kill, slow, hang, exit, crash"),
        ("kill", "none of step, after"),
        ("kill:node=node-1", "none of step, after"),
        ("kill:step=1", "none of node, worker"),
        ("kill:node=node-1,worker=1,step=1", "more than one of node, worker"),
        ("kill:node=node-1,step=1,after=2", "more than one of step, after"),
        ("kill:node=node-9,step=1", "node-0, node-1, node-2"),
        ("kill:node=node-1,step=1,step=2", "twice"),
        ("kill:node=node-1,step", "not key=value"),
        ("kill:node=,step=1", "not key=value"),
        ("kill:node=node-1,stop=1", "allowed are node, worker, step, after"),
        ("slow:worker=1,step=1,factor=fast", "number from 1 to 100"),
        ("slow:worker=1,step=1,factor=nan", "number from 1 to 100"),
        ("slow:worker=1,step=-1", "whole number"),
        ("hang:worker=\u0661,step=1", "whole number"),
        ("exit:worker=1,step=1,signal=0", "from 1 to 64"),
        ("crash:part=kernel,step=1", "operator, memory, launcher, eagle-eye, checkpoint"),
        ("crash:step=1", "operator, memory, launcher, eagle-eye, checkpoint"),
    ],
)
def test_errors_name_the_spec_and_what_is_allowed(spec: str, hint: str) -> None:
    with pytest.raises(InjectionError) as caught:
        parse(spec, NODES)
    assert repr(spec) in str(caught.value)
    assert hint in str(caught.value)


@given(st.text(alphabet="kilslowhangexitcrash:=,node-0123456789.", max_size=40))
@settings(deadline=None, derandomize=True)
def test_any_text_is_an_injection_or_an_injection_error(text: str) -> None:
    try:
        parsed = parse(text, NODES)
    except InjectionError:
        return
    assert isinstance(parsed, Injection)
    assert (parsed.step is None) != (parsed.after is None)


valid = st.one_of(
    st.builds(lambda n, s: f"kill:node=node-{n},step={s}", st.integers(0, 2), st.integers(0, 50)),
    st.builds(lambda w, a: f"hang:worker={w},after={a}", st.integers(0, 3), st.integers(0, 50)),
    st.builds(lambda p, s: f"crash:part={p.value},step={s}", st.sampled_from(list(Part)), st.integers(0, 50)),
)


@given(st.lists(valid, max_size=8), st.lists(st.tuples(st.none() | st.integers(0, 60), st.floats(0, 60)), max_size=20))
@settings(deadline=None, derandomize=True)
def test_each_is_due_once_and_never_early(specs: list[str], moments: list[tuple[int | None, float]]) -> None:
    injections = parse_all(specs, NODES)
    assert len({each.id for each in injections}) == len(injections)
    done: list[str] = []
    for step, seconds in moments:
        for each in due(injections, done, step=step, seconds=seconds):
            if each.step is not None:
                assert step is not None
                assert step >= each.step
            else:
                assert each.after is not None
                assert seconds >= each.after
            done.append(each.id)
    assert len(done) == len(set(done))
    assert due(injections, done, step=10**6, seconds=10**6) == [each for each in injections if each.id not in done]


def test_the_same_spec_twice_is_two_injections_with_ids_that_stay() -> None:
    first, second = parse_all(["kill:worker=1,step=1"] * 2, NODES)
    assert first.id != second.id
    assert parse_all(["kill:worker=1,step=1"] * 2, NODES) == [first, second]
