"""The StepReporter on a clock of its own."""

from __future__ import annotations

import logging
import math
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from sternpost_eagle_eye.collect.trainer import rank_vector
from sternpost_eagle_eye.reporter.step_reporter import StepReporter


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(clock):
    made = []

    def build(registry=None, **environ):
        registry = registry or CollectorRegistry()
        reporter = StepReporter(
            registry=registry,
            environ={"RANK": "3", "STERNPOST_ATTEMPT": "2-abc", **environ},
            monotonic=clock,
            wall=lambda: clock.now + 1000,
        )
        made.append(reporter)
        return reporter, lambda name, **labels: registry.get_sample_value(name, {"rank": "3", **labels})

    yield build
    for reporter in made:
        reporter.close()  # again for some: nothing happens


def test_a_step_and_its_waits(make, clock):
    reporter, value = make()
    assert value("sternpost_step") is None  # no step yet is not step 0
    assert value("sternpost_phase", phase="init") == 1
    with reporter.step(41):
        clock.now += 2
        with reporter.collective():
            assert value("sternpost_in_collective") == 1
            with reporter.collective():
                clock.now += 1
        assert value("sternpost_in_collective") == 0
        reporter.report(loss=2.5, grad_norm=1, samples=16)
    assert value("sternpost_step") == value("sternpost_first_step") == 41
    assert value("sternpost_step_seconds_sum") == 3
    assert value("sternpost_compute_seconds_sum") == 2
    assert value("sternpost_last_step_timestamp_seconds") == 1053
    assert value("sternpost_first_step_timestamp_seconds") == 1053
    assert value("sternpost_samples_total") == 16
    assert value("sternpost_phase", phase="train") == 1
    assert value("sternpost_phase", phase="init") == 0
    assert value("sternpost_attempt_info", attempt="2-abc") == 1


def test_a_step_that_fails_does_not_count(make, clock):
    reporter, value = make()

    def broken_step():
        with reporter.step(1):
            clock.now += 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_step()
    assert value("sternpost_step") is None
    assert value("sternpost_step_seconds_count") == 0


def test_the_simple_form_leaves_out_other_phases(make, clock):
    reporter, value = make()
    clock.now += 30
    reporter.step_completed(1, loss=3)
    assert value("sternpost_step_seconds_count") == 0
    clock.now += 2
    with reporter.phase("eval"):
        assert value("sternpost_phase", phase="eval") == 1
        with reporter.phase("checkpoint"):
            clock.now += 10
    reporter.step_completed(2, samples=4)
    assert value("sternpost_step_seconds_sum") == 2
    assert value("sternpost_phase", phase="train") == 1
    assert value("sternpost_step") == 2


def test_an_unknown_phase_is_named(make):
    reporter, _ = make()
    with pytest.raises(ValueError, match="unknown phase 'warmup'; it is one of init, train"), reporter.phase("warmup"):
        pass


def test_losses_that_are_no_numbers_are_news(make):
    reporter, value = make()
    reporter.report(loss=float("nan"), grad_norm=float("inf"))
    assert math.isnan(value("sternpost_loss"))
    assert math.isinf(value("sternpost_grad_norm"))


def test_a_second_reporter_is_refused_and_a_closed_one_is_gone(make):
    registry = CollectorRegistry()
    first, _ = make(registry)
    with pytest.raises(RuntimeError, match="use that one"):
        StepReporter(registry=registry, environ={})
    first.close()
    StepReporter(registry=registry, environ={}).close()
    make(registry)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_page_is_what_the_sidecar_reads(make, clock):
    reporter, _ = make(STERNPOST_METRICS_PORT=str(free_port()), STERNPOST_METRICS_HOST="127.0.0.1")
    with reporter.step(7):
        clock.now += 0.5
    reporter.report(loss=1.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{reporter.port}/metrics", timeout=5) as response:
        vector, dropped = rank_vector(response.read().decode(), 3, "2-abc")
    assert dropped == 0
    assert (vector.page, vector.step, vector.phase, vector.in_collective) == ("ok", 7, "train", False)
    assert (vector.step_count, vector.compute_sum, vector.loss) == (1, 0.5, 1.5)


@pytest.mark.parametrize("port", ["taken", "-1", "70000", "http"])
def test_a_port_that_is_not_to_be_had_costs_the_metrics_only(make, caplog, port):
    with socket.socket() as other, caplog.at_level(logging.WARNING):
        other.bind(("127.0.0.1", 0))
        other.listen()
        text = str(other.getsockname()[1]) if port == "taken" else port
        reporter, value = make(STERNPOST_METRICS_PORT=text, STERNPOST_METRICS_HOST="127.0.0.1")
        with reporter.step(1):
            pass
        assert reporter.port is None
        assert value("sternpost_step") == 1
    assert text in caplog.text
    assert "set another one" in caplog.text


def test_attach_wants_a_ddp_model(make):
    torch = pytest.importorskip("torch")
    reporter, _ = make()
    with pytest.raises(TypeError, match="DistributedDataParallel, not a Linear"):
        reporter.attach(torch.nn.Linear(2, 2))
    reporter.report(loss=torch.ones(1, requires_grad=True))
