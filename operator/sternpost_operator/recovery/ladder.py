"""From signs to a verdict: the cause, the rung of the ladder, whom to replace and which nodes to leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sternpost_operator.recovery.circuit import breaks_circuit
from sternpost_operator.recovery.exclusion import is_suspected
from sternpost_operator.recovery.failure_signal import Signal
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job import RecoveryBudgets, RuleAction
from sternpost_operator.resources.training_job_status import BudgetsUsed, Cause, Rung, TrainingJobStatus

MAX_REPLACED = 64
MAX_MESSAGE = 1024
REPEATS = 3
"""So often the same worker may fail without progress before its Pod is replaced."""

_WEIGHT = {
    Cause.NODE_LOST: 0,
    Cause.NODE_UNHEALTHY: 1,
    Cause.NODE_LEAVING: 2,
    Cause.SLOW_NODE: 3,
    Cause.HANG: 4,
    Cause.POD_LOST: 5,
    Cause.WORKER_SILENT: 6,
    Cause.RANK_FAILED: 7,
    Cause.START_TIMEOUT: 8,
}
"""What explains the rest comes first: when a node is lost, the ranks elsewhere fail in consequence."""

_GONE = (Cause.NODE_LOST, Cause.NODE_LEAVING, Cause.POD_LOST)
"""Facts about Pods, whoever is to blame for them."""

_RUNG_OF_RULE: Mapping[RuleAction | None, Rung] = {
    RuleAction.RESTART_RANKS: Rung.RANKS,
    RuleAction.REPLACE_POD: Rung.PODS,
    RuleAction.EXCLUDE_NODE: Rung.PODS,
    RuleAction.RESTART_JOB: Rung.JOB,
}

_RUNGS = (Rung.RANKS, Rung.PODS, Rung.JOB)


@dataclass(frozen=True)
class Verdict:
    """What is to be done."""

    signal: Signal
    """The sign that is the cause."""
    rung: Rung | None
    """None: the job has failed, for `failure_reason`."""
    message: str
    exclude: Mapping[str, str] = field(default_factory=dict)
    """Reasons by node."""
    suspect: Mapping[str, str] = field(default_factory=dict)
    """Reasons by node."""
    replace: tuple[str, ...] = ()
    """Uids of Pods."""
    replace_all: bool = False
    failure_reason: str = ""

    @property
    def cause(self) -> Cause:
        """Why the attempt ended."""
        return self.signal.cause


def judge(view: View, status: TrainingJobStatus, signals: Sequence[Signal]) -> Verdict:
    """Judge signs of which at least one is ripe."""
    cause = min(signals, key=lambda signal: (_WEIGHT[signal.cause], signal.at, _index(signal)))
    message = cause.message[:MAX_MESSAGE]
    rule = _rule(view, cause)
    if rule is RuleAction.FAIL_JOB:
        return Verdict(cause, None, message, failure_reason="FailureRule")
    run = view.run(status)
    nodes = {worker.node for worker in run.workers} if run else set()
    blamed = {each.node: each.message[:MAX_MESSAGE] for each in signals if each.blames_node and each.node}
    suspects = {each.node: each.message[:MAX_MESSAGE] for each in signals if each.cause is Cause.HANG and each.node}
    if rule is RuleAction.EXCLUDE_NODE and cause.node:
        blamed[cause.node] = message
    again = {node: f"blamed again: {reason}" for node, reason in suspects.items() if is_suspected(status, node)}
    if cause.cause is Cause.HANG:
        blamed = {**again, **blamed}
    replaced = {each.uid for each in signals if each.replace and each.uid}
    rung = _natural(view, status, cause, rule)
    proven = {each.node: blamed[each.node] for each in signals if each.proven and each.node in blamed}
    if breaks_circuit({*blamed, *suspects} - set(proven), nodes):
        lost = any(each.cause is Cause.NODE_LOST for each in signals)
        message = f"{message}; as most nodes of the job are blamed at once, none of them is"
        message, blamed, suspects, rung = message[:MAX_MESSAGE], proven, {}, Rung.JOB if lost else Rung.RANKS
        replaced = {each.uid for each in signals if (each.proven or each.cause in _GONE) and each.uid}
    if rung is not Rung.RANKS and cause.uid and not replaced:
        replaced = {cause.uid}
    if rung is Rung.RANKS and (replaced or blamed):
        rung = Rung.PODS
    suspects = {node: reason for node, reason in suspects.items() if node not in blamed}
    wanted = Verdict(cause, rung, message, exclude=blamed, suspect=suspects, replace=tuple(sorted(replaced)))
    return _within_budget(view, status, wanted, rung)


def _within_budget(view: View, status: TrainingJobStatus, wanted: Verdict, first: Rung) -> Verdict:
    """The same on the first rung, from `first` on, that may still be used."""
    budgets = view.policy.budgets
    for rung in _RUNGS[_RUNGS.index(first) :]:
        if used(status.budgets, rung) >= allowed(budgets, rung):
            continue
        uids = wanted.replace
        if rung is Rung.PODS and first is Rung.RANKS:
            if wanted.signal.uid is None:
                continue  # nobody to replace: it would be a restart of the ranks, which has had its chances
            uids = (wanted.signal.uid,)
        # The status keeps only so many uids; whoever needs more starts anew.
        replace_all = rung is Rung.JOB or len(uids) > MAX_REPLACED
        return replace(wanted, rung=rung, replace=() if replace_all else uids, replace_all=replace_all)
    spent = ", ".join(f"{rung} {used(status.budgets, rung)} of {allowed(budgets, rung)}" for rung in _RUNGS)
    message = f"{wanted.message} (used: {spent})"
    return replace(wanted, rung=None, message=message, failure_reason="BudgetExceeded")


def _natural(view: View, status: TrainingJobStatus, cause: Signal, rule: RuleAction | None) -> Rung:
    if rule in _RUNG_OF_RULE:
        return _RUNG_OF_RULE[rule]
    match cause.cause:
        case Cause.RANK_FAILED:
            climbs = _keeps_failing(view, status, cause)
        case Cause.HANG:
            climbs = cause.node is not None and is_suspected(status, cause.node)
        case Cause.START_TIMEOUT:
            climbs = cause.replace
        case _:
            climbs = True
    return Rung.PODS if climbs else Rung.RANKS


def _rule(view: View, cause: Signal) -> RuleAction | None:
    """What the job's own rules say of the rank that failed first."""
    if cause.cause is not Cause.RANK_FAILED or cause.exit_code is None:
        return None
    return next((rule.action for rule in view.policy.rules if cause.exit_code in rule.exit_codes), None)


def _keeps_failing(view: View, status: TrainingJobStatus, cause: Signal) -> bool:
    """Whether the last `REPEATS` attempts ended just like this one, and none of them got further."""
    records = status.attempts[-REPEATS:]
    if len(records) < REPEATS or cause.worker is None:
        return False
    same = all(
        (each.cause, each.worker, each.node) == (Cause.RANK_FAILED, cause.worker.index, cause.worker.node)
        for each in records
    )
    newest = view.newest_report(status)
    reached = newest.step if newest and newest.step is not None else status.attempt.last_step
    first = records[0].last_step
    return same and (reached is None or (first is not None and reached <= first))


def used(budgets: BudgetsUsed, rung: Rung) -> int:
    """What a rung has cost so far."""
    match rung:
        case Rung.RANKS:
            return budgets.ranks
        case Rung.PODS:
            return budgets.pods
        case Rung.JOB:
            return budgets.jobs


def allowed(budgets: RecoveryBudgets, rung: Rung) -> int:
    """What a rung may cost in the life of the job."""
    match rung:
        case Rung.RANKS:
            return budgets.ranks
        case Rung.PODS:
            return budgets.pods
        case Rung.JOB:
            return budgets.jobs


def charged(budgets: BudgetsUsed, rung: Rung) -> BudgetsUsed:
    """The budgets after one more use of a rung."""
    return budgets.model_copy(update={rung.value: used(budgets, rung) + 1})


def _index(signal: Signal) -> int:
    return signal.worker.index if signal.worker else 0
