"""A PNG of the loss with the recoveries marked."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sternpost_operator.local_run.report import LossPoint, Report

DOTS_PER_INCH = 130
_COLOURS = ("#c0392b", "#d68910", "#7d3c98", "#1e8449", "#2471a3")
_LIVE = "#1f4e79"
_REFERENCE = "#9aa5b1"


def draw(report: Report, path: Path, reference: Report | None = None) -> None:
    """Write the picture: loss over wall time above, loss over step below. Raises `OSError`."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    figure.suptitle(_title(report), fontsize=13)
    _over_time(above, report, reference)
    _over_steps(below, report, reference)
    temporary = path.with_name(f".{path.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _title(report: Report) -> str:
    steps = f"{report.steps} steps" if report.steps is not None else "no steps"
    recoveries = f"{len(report.attempts)} recoveries" if len(report.attempts) != 1 else "1 recovery"
    return f"{report.job}: {report.phase}, {steps}, {recoveries}, {report.lost_steps} steps lost"


def _over_time(axes: Axes, report: Report, reference: Report | None) -> None:
    if reference is not None and reference.loss:
        points = _since(reference)
        axes.plot([t for t, _ in points], [y for _, y in points], color=_REFERENCE, linewidth=3, label="undisturbed")
    for number, points in enumerate(_pieces(report)):
        label = report.job if number == 0 else None
        axes.plot([t for t, _ in points], [y for _, y in points], color=_LIVE, linewidth=1.2, label=label)
    for number, attempt in enumerate(report.attempts):
        colour = _COLOURS[number % len(_COLOURS)]
        began = attempt.detected_at - report.started_at
        injection = next((each for each in report.injections if each.spec == attempt.injection), None)
        if injection is not None:
            began = injection.at - report.started_at
        known = [value for value in attempt.stages.values() if value is not None]
        where = f" on {attempt.node}" if attempt.node else ""
        label = f"{attempt.cause.value}{where}: {sum(known):.1f} s to recover"
        axes.axvspan(began, began + sum(known), color=colour, alpha=0.25, label=label)
        axes.axvline(began, color=colour, linewidth=1)
    axes.set_title("Loss over wall time; bands last from the fault to the first step after it", fontsize=10)
    axes.set_xlabel("time since the start (s)")
    _finish(axes)


def _over_steps(axes: Axes, report: Report, reference: Report | None) -> None:
    if reference is not None and reference.loss:
        points = reference.loss
        axes.plot(
            [p.step for p in points], [p.loss for p in points], color=_REFERENCE, linewidth=3, label="undisturbed"
        )
    for number, piece in enumerate(_attempts(report.loss)):
        label = report.job if number == 0 else None
        axes.plot([p.step for p in piece], [p.loss for p in piece], color=_LIVE, linewidth=1.2, label=label)
    for number, attempt in enumerate(report.attempts):
        colour = _COLOURS[number % len(_COLOURS)]
        if attempt.last_step is None:
            continue
        lost = f", {attempt.lost_steps} lost" if attempt.lost_steps is not None else ""
        label = f"{attempt.cause.value} at step {attempt.last_step}{lost}"
        axes.axvline(attempt.last_step, color=colour, linestyle="--", linewidth=1.2, label=label)
    axes.set_title("Loss over steps; steps after a recovery lie on those before it", fontsize=10)
    axes.set_xlabel("step")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_ylabel("loss")
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper right")
    else:
        axes.text(0.5, 0.5, "the job reported no loss", ha="center", va="center", transform=axes.transAxes)


def _since(report: Report) -> list[tuple[float, float]]:
    return [(point.t - report.started_at, point.loss) for point in report.loss]


def _pieces(report: Report) -> list[list[tuple[float, float]]]:
    """The curve of each attempt, so that no line is drawn through the time in which nothing ran."""
    return [[(point.t - report.started_at, point.loss) for point in piece] for piece in _attempts(report.loss)]


def _attempts(points: list[LossPoint]) -> list[list[LossPoint]]:
    pieces: list[list[LossPoint]] = []
    for point in points:
        if not pieces or pieces[-1][-1].attempt != point.attempt:
            pieces.append([])
        pieces[-1].append(point)
    return pieces
