"""What checkpoints cost and how safe the state is."""

from __future__ import annotations

from tools.dashboards.frame import Row
from tools.dashboards.look import BAD, GOOD, THIRD, WARN, thresholds
from tools.dashboards.panels import bars, graph
from tools.dashboards.query import Query, now
from tools.dashboards.researcher.selectors import JOB, RATE, WORKER, mean


def rows() -> list[Row]:
    """Age, blocking, size, failures."""
    return [
        Row(
            "Checkpoints",
            [
                graph(
                    "Checkpoint age",
                    "Since the newest checkpoint was committed. What a loss of all nodes would cost.",
                    "s",
                    Query(f"time() - max(sternpost_checkpoint_committed_timestamp_seconds{JOB} > 0)", "age"),
                    size=THIRD,
                    steps=thresholds(GOOD, (1800, WARN), (3600, BAD)),
                ),
                graph(
                    "Blocked per save",
                    "How long a save held the training up: the copy to shared memory, and a wait where both slots were busy.",
                    "s",
                    Query(f"avg({mean('sternpost_checkpoint_blocked_seconds', JOB)})", "mean"),
                    Query(f"max({mean('sternpost_checkpoint_blocked_seconds', JOB)})", "slowest rank"),
                    size=THIRD,
                    steps=thresholds(GOOD, (1, WARN), (10, BAD)),
                ),
                graph(
                    "Time blocked",
                    "Share of the training's time that went into saves.",
                    "percentunit",
                    Query(f"avg(rate(sternpost_checkpoint_blocked_seconds_sum{JOB}[{RATE}]))", "blocked"),
                    size=THIRD,
                    steps=thresholds(GOOD, (0.02, WARN), (0.1, BAD)),
                    legend=("mean", "max"),
                ),
                graph(
                    "Compression ratio",
                    "Bytes of state made durable for each byte written, since the sidecars' start.",
                    "none",
                    Query(
                        f"sum(sternpost_checkpoint_raw_bytes_total{JOB}) / sum(sternpost_checkpoint_stored_bytes_total{JOB})",
                        "raw / stored",
                    ),
                    size=THIRD,
                    legend=("lastNotNull", "min"),
                ),
                graph(
                    "Written",
                    "State made durable, and what was written for it, all workers together.",
                    "Bps",
                    Query(f"sum(rate(sternpost_checkpoint_raw_bytes_total{JOB}[{RATE}]))", "raw"),
                    Query(f"sum(rate(sternpost_checkpoint_stored_bytes_total{JOB}[{RATE}]))", "stored"),
                    size=THIRD,
                ),
                graph(
                    "Time to become durable",
                    "From the save to the storage having it, of the last save; the training goes on meanwhile.",
                    "s",
                    Query(f"max by (pod) (sternpost_checkpoint_persist_seconds{WORKER})", "{{pod}}"),
                    size=THIRD,
                ),
                graph(
                    "Saves left out and refused",
                    "Left out: the sidecar was still busy with both slots, save less often or give it more bandwidth. "
                    "Refused: the storage did not take it; it is tried again.",
                    "short",
                    Query(f"sum(increase(sternpost_checkpoint_skipped_total{JOB}[{RATE}])) or vector(0)", "left out"),
                    Query(f"sum(increase(sternpost_checkpoint_failures_total{JOB}[{RATE}]))", "refused"),
                    size=THIRD,
                    legend=("sum",),
                ),
                bars(
                    "Problems now",
                    "Why the last save, commit or restore failed, as the sidecars say it. It is the job's condition "
                    "CheckpointsFailing, too.",
                    "short",
                    now(
                        f"sum by (reason) (sternpost_checkpoint_problem{JOB})"
                        ' or label_replace(vector(0), "reason", "none", "", "")',
                        "{{reason}}",
                    ),
                    steps=thresholds(GOOD, (1, BAD)),
                    size=THIRD,
                ),
                graph(
                    "Waiting for the storage",
                    "Ranks whose training stands still for the sidecar or the storage. It is no hang.",
                    "short",
                    Query(f"sum(sternpost_checkpoint_waiting{JOB}) or vector(0)", "ranks"),
                    size=THIRD,
                ),
            ],
        )
    ]
