"""What one looks at first."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, INFO, STRIP, WARN, thresholds
from tools.dashboards.panels import tile, timeline
from tools.dashboards.query import Query, as_number
from tools.dashboards.researcher.selectors import JOB, RATE
from tools.dashboards.states import JOB_PHASES, TRAINER_PHASES

_PHASE = 'sternpost_job_phase{namespace="$namespace",job_name="$job",@}'
_TRAINER_PHASE = 'sternpost_phase{namespace="$namespace",job_name="$job",pod=~"$worker",@}'


def rows() -> list[Row]:
    """Single numbers, and the phases over time."""
    job_phases = [state.text for state in JOB_PHASES]
    trainer_phases = [state.text for state in TRAINER_PHASES]
    return [
        Row(
            "Now",
            [
                tile(
                    "Phase",
                    "Of the TrainingJob, as `kubectl get tj` shows it.",
                    "none",
                    Query(as_number(_PHASE, "phase", job_phases), "phase"),
                    states=JOB_PHASES,
                ),
                tile(
                    "Step",
                    "Last step that all workers have completed, as the operator knows it.",
                    "locale",
                    Query(f"max(sternpost_job_step{JOB})"),
                ),
                tile(
                    "Steps per second",
                    "Mean over the ranks. In data-parallel training all have the same.",
                    "ops",
                    Query(f"avg(rate(sternpost_step_seconds_count{JOB}[{RATE}]))"),
                    decimals=2,
                ),
                tile(
                    "Loss",
                    "As last reported; mean over the ranks.",
                    "none",
                    Query(f"avg(sternpost_loss{JOB})"),
                    decimals=4,
                ),
                tile(
                    "Goodput",
                    "Share of the time since the job's start that went into steps which count: without starts, recoveries and "
                    "repeated steps.",
                    "percentunit",
                    Query(f"max(sternpost_job_goodput_ratio{JOB})"),
                    steps=thresholds(BAD, (0.5, WARN), (0.9, GOOD)),
                    decimals=1,
                ),
                tile(
                    "Checkpoint age",
                    "Since the newest checkpoint was committed to the storage. Shared memory holds a newer one, "
                    "unless its node is lost.",
                    "s",
                    Query(f"time() - max(sternpost_checkpoint_committed_timestamp_seconds{JOB} > 0)"),
                    steps=thresholds(GOOD, (1800, WARN), (3600, BAD)),
                    decimals=0,
                ),
                tile(
                    "Attempt",
                    "Number of the current attempt; each recovery and each resume begins a new one.",
                    "none",
                    Query(f"max(sternpost_job_attempt{JOB})"),
                    steps=thresholds(INFO),
                ),
                tile(
                    "Lost steps",
                    "Steps repeated after recoveries, since the job's start.",
                    "locale",
                    Query(f"max(sternpost_job_lost_steps{JOB})"),
                    steps=thresholds(GOOD, (1, WARN)),
                ),
                timeline(
                    "Phase of the job",
                    "Starting: ranks are being started and the state restored. Recovering: a failure was decided upon.",
                    Query(as_number(_PHASE, "phase", job_phases), "job"),
                    states=JOB_PHASES,
                    size=STRIP,
                ),
                timeline(
                    "Phase of the trainers",
                    "By Pod, of its first rank as the script tells it; a gap means that the Pod has no trainer.",
                    Query(as_number(_TRAINER_PHASE, "phase", trainer_phases, by="pod"), "{{pod}}"),
                    states=TRAINER_PHASES,
                    size=STRIP,
                ),
            ],
        )
    ]
