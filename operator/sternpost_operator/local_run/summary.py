"""The end of a run in a few lines, from its report. Pure."""

from __future__ import annotations

from sternpost_operator.local_run.report import Report, ReportAttempt, ReportCheckpoint

_STAGES = ("detect", "decide", "terminate", "start", "restore", "firstStep")


def lines(report: Report) -> list[str]:
    """What a person wants to know first."""
    steps = f" at step {report.steps}" if report.steps is not None else ""
    found = [
        f"{report.job}: {report.phase}{steps} after {report.seconds:.1f} s",
        f"  restarts {report.restarts}, steps lost {report.lost_steps}, goodput {report.goodput:.0%}",
    ]
    found += [f"  {line}" for attempt in report.attempts for line in _attempt(attempt)]
    if report.excluded_nodes:
        found.append(f"  excluded nodes: {', '.join(each.node for each in report.excluded_nodes)}")
    if report.suspected_nodes:
        found.append(f"  suspected nodes: {', '.join(report.suspected_nodes)}")
    if report.checkpoint.saves:
        found.append(f"  {_checkpoint(report.checkpoint)}")
    if report.final_hash:
        found.append(f"  final weights: {report.final_hash}")
    if report.phase == "Failed":
        found += [f"  why: {each.message}" for each in report.conditions if each.type == "Failed" and each.message]
    return found


def _attempt(attempt: ReportAttempt) -> list[str]:
    who = f" worker {attempt.worker}" if attempt.worker is not None else ""
    where = f" on {attempt.node}" if attempt.node else ""
    rung = {"ranks": "ranks restarted in place", "pods": "Pod replaced", "jobs": "whole job restarted"}
    repair = f", {rung[attempt.rung]}" if attempt.rung in rung else ""
    lost = f", {attempt.lost_steps} steps lost" if attempt.lost_steps is not None else ""
    known = [(name, attempt.stages.get(name)) for name in _STAGES]
    stages = ", ".join(f"{name} {value:.1f}" for name, value in known if value is not None)
    total = sum(value for _, value in known if value is not None)
    first = f"attempt {attempt.number}: {attempt.cause.value}{who}{where}{repair}{lost}"
    return [first, f"  {total:.1f} s: {stages}"] if stages else [first]


def _checkpoint(figures: ReportCheckpoint) -> str:
    parts = [f"checkpoints: {figures.saves} saves"]
    if figures.blocked_ms is not None:
        parts.append(f"blocked {figures.blocked_ms.median:.1f} ms (median), {figures.blocked_ms.max:.1f} ms (max)")
    if figures.memcpy_floor_ms is not None:
        over = f" = {figures.blocked_over_floor:.1f} times" if figures.blocked_over_floor is not None else ""
        parts.append(f"memcpy floor {figures.memcpy_floor_ms:.1f} ms{over}")
    if figures.ratio is not None:
        stored = figures.bytes_stored / 2**20
        parts.append(f"ratio {figures.ratio:.2f} ({figures.bytes_raw / 2**20:.1f} MiB as {stored:.1f} MiB)")
    return ", ".join(parts)
