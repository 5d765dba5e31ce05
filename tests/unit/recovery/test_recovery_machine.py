"""Random histories against a deliberately simple cluster: what must never happen, does not; what must happen, does."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from recovery_cluster import TOTAL_STEPS, FakeCluster, FakeOperator, settle

from sternpost_operator.resources.anomaly import AnomalyKind
from sternpost_operator.resources.training_job import (
    CheckpointPolicy,
    Elastic,
    RecoveryBudgets,
    RecoveryPolicy,
    TrainingJobSpec,
)
from sternpost_operator.resources.training_job_status import Phase

NUMBERS = st.integers(0, 50)
LATER = st.sampled_from([0, 0, 1, 2, 5])
"""Seconds of ordinary work before a fault."""


class RecoveryMachine(RuleBasedStateMachine):
    """Faults of every kind in any order, then peace."""

    @initialize(
        workers=st.integers(1, 3),
        spares=st.integers(0, 2),
        nodes=st.integers(2, 4),
        elastic=st.booleans(),
        budgets=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)),
        warm=st.integers(0, 8),
        ttl=st.sampled_from([None, 0, 20]),
    )
    def begin(self, *, workers, spares, nodes, elastic, budgets, warm, ttl):
        spec = TrainingJobSpec(
            workers=None if elastic else workers,
            elastic=Elastic(min=1, max=workers, wait_seconds=5) if elastic else None,
            spares=spares,
            ttl_seconds_after_finished=ttl,
            checkpoint=CheckpointPolicy(storage="file:///checkpoints"),
            template={"spec": {"containers": [{"name": "trainer"}]}},
            recovery=RecoveryPolicy(
                budgets=RecoveryBudgets(ranks=budgets[0], pods=budgets[1], jobs=budgets[2]),
                settle_seconds=1,
                node_lost_seconds=4,
                start_seconds=40,
                grace_seconds=2,
                exclude_seconds=60,
                force_delete_seconds=6,
            ),
        )
        self.cluster = FakeCluster(spec, nodes)
        self.operator = FakeOperator(self.cluster)
        self.go_on(warm)

    def go_on(self, times, seconds=1.0):
        for _ in range(times):
            self.cluster.tick(seconds)
            self.operator.reconcile()

    def some_pod(self, number):
        pods = sorted(self.cluster.pods.values(), key=lambda pod: pod.slot)
        return pods[number % len(pods)] if pods else None

    def some_node(self, number):
        return sorted(self.cluster.nodes)[number % len(self.cluster.nodes)]

    # The operator, well and ill

    @rule(seconds=st.sampled_from([0.5, 0.5, 1, 3]), times=st.integers(1, 6))
    def time_passes(self, seconds, times):
        self.go_on(times, seconds)

    @rule(seconds=st.sampled_from([1, 5, 30]))
    def operator_is_away(self, seconds):
        for _ in range(5):
            self.cluster.tick(seconds / 5)

    @rule(after=st.integers(0, 6))
    def operator_is_killed(self, after):
        self.operator.reconcile(crash_after=after)

    @rule(back=st.integers(1, 5))
    def observation_is_old(self, back):
        if self.operator.past:
            self.operator.reconcile(observed=self.operator.past[-min(back, len(self.operator.past))])

    @rule(times=st.integers(1, 4))
    def answers_are_lost(self, times):
        for _ in range(times):
            self.cluster.tick(1)
            self.operator.reconcile(observed=replace(self.cluster.observe(), progress=None))

    @rule()
    def status_conflicts(self):
        self.operator.reconcile(meddle=True)

    # The machines

    @rule(number=NUMBERS, kill=st.booleans(), later=LATER)
    def node_is_lost(self, number, kill, later):
        self.go_on(later)
        self.cluster.lose_node(self.some_node(number), kill=kill)

    @rule(number=NUMBERS, later=LATER)
    def node_returns(self, number, later):
        self.go_on(later)
        self.cluster.return_node(self.some_node(number))

    @rule(number=NUMBERS, seconds=st.sampled_from([0, 2, 7, 15, 40]), later=LATER)
    def node_announces_its_end(self, number, seconds, later):
        self.go_on(later)
        self.cluster.announce(self.some_node(number), seconds=seconds)

    @rule(number=NUMBERS, later=LATER)
    def node_falls_ill(self, number, later):
        self.go_on(later)
        self.cluster.fall_ill(self.some_node(number))

    @rule(number=NUMBERS, delete=st.booleans(), later=LATER)
    def pod_is_evicted(self, number, delete, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            self.cluster.disrupt(pod, delete=delete)

    @rule(number=NUMBERS, later=LATER)
    def rank_fails(self, number, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            self.cluster.fail_rank(pod)

    @rule(number=NUMBERS, later=LATER)
    def launcher_is_killed(self, number, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            self.cluster.kill_launcher(pod)

    @rule(number=NUMBERS, later=LATER)
    def rank_hangs(self, number, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            pod.hung = True

    @rule(number=NUMBERS, later=LATER)
    def sidecar_falls_silent(self, number, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            pod.mute = True

    @rule(number=NUMBERS, later=LATER)
    def ranks_do_not_start(self, number, later):
        self.go_on(later)
        if pod := self.some_pod(number):
            pod.stuck = True

    @rule(number=NUMBERS, gone=st.booleans(), later=LATER)
    def pod_is_deleted_by_others(self, number, gone, later):
        self.go_on(later)
        pod = self.some_pod(number)
        if pod is None:
            return
        if gone:
            del self.cluster.pods[pod.name]
        else:
            pod.deleted = self.cluster.clock

    @rule(later=LATER)
    def attempt_is_deleted_by_others(self, later):
        self.go_on(later)
        self.cluster.attempt = None

    @rule(number=NUMBERS, kind=st.sampled_from(AnomalyKind), back=st.integers(0, 2), evict=st.booleans(), later=LATER)
    def finding_is_reported(self, number, kind, back, evict, later):
        self.go_on(later)
        attempts = sorted(self.cluster.assignments, key=lambda each: int(each.split("-")[0]))
        if not attempts:
            return
        attempt = attempts[-1 - min(back, len(attempts) - 1)]
        self.cluster.report_anomaly(kind, attempt, self.some_pod(number), evict=evict)

    # People

    @rule(suspend=st.booleans(), later=LATER)
    def spec_suspend(self, suspend, later):
        self.go_on(later)
        self.cluster.change_spec(suspend=suspend)

    @rule(spares=st.integers(0, 2), later=LATER)
    def spec_spares(self, spares, later):
        self.go_on(later)
        self.cluster.change_spec(spares=spares)

    @rule(up=st.booleans(), later=LATER)
    def memory_service(self, up, later):
        self.go_on(later)
        self.cluster.memory_up = up

    @invariant()
    def no_worker_runs_where_it_must_not(self):
        if not hasattr(self, "cluster"):
            return
        status = self.cluster.job.status
        if status.phase.terminal:
            assert status.finished_at is not None
        assert len(status.unsent_incidents) <= 50
        assert status.attempt.number >= (self.cluster.attempt.number if self.cluster.attempt else 0)

    def teardown(self):
        if not hasattr(self, "cluster"):
            return
        settle(self.cluster, self.operator)
        status = self.cluster.job.status
        if status.phase is Phase.FAILED:
            failed = next(each for each in status.conditions if each.type == "Failed")
            assert failed.reason == "BudgetExceeded"
            assert status.budgets.jobs >= self.cluster.job.spec.recovery.budgets.jobs
        else:
            assert self.cluster.committed == TOTAL_STEPS
        ended = status
        for _ in range(3):
            self.cluster.tick(1)
            self.operator.reconcile()
        assert self.cluster.job.status == ended
        self.cluster.tick(20)
        self.operator.reconcile()
        assert self.cluster.deleted == (self.cluster.job.spec.ttl_seconds_after_finished is not None)


RecoveryMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    # A failure is reported as it was found: to make such a history shorter takes minutes.
    phases=(Stage.explicit, Stage.reuse, Stage.generate),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRecoveryMachine = RecoveryMachine.TestCase
