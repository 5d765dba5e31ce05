"""Where no worker may be now: excluded nodes, nodes with bad hardware, nodes that are about to go."""

from __future__ import annotations

from sternpost_operator.recovery import exclusion
from sternpost_operator.recovery.observed import PodView
from sternpost_operator.recovery.view import View
from sternpost_operator.resources.training_job_status import TrainingJobStatus

MAX_AVOIDED = 500
"""Names in the affinity of one Pod; a Pod that lands on a node beyond them is deleted and made anew."""


def avoided(view: View, status: TrainingJobStatus) -> tuple[str, ...]:
    """Names of the nodes that new Pods are kept away from, sorted; the job's own exclusions are never left out."""
    own = exclusion.excluded(status)
    # Whole pools may be tainted for other uses: to name them all would help nobody.
    tempting = {node for node, each in view.leaving_nodes.items() if not each.repels}
    others = sorted((tempting | set(view.bad_nodes)) - set(own))
    return tuple(sorted([*own, *others][:MAX_AVOIDED]))


def is_avoided(view: View, status: TrainingJobStatus, pod: PodView) -> bool:
    """Whether the Pod is where no worker may be, or is about to be ended by others."""
    if pod.disruption:
        return True
    if pod.node is None:
        return False
    return pod.node in view.bad_nodes or pod.node in view.leaving_nodes or exclusion.is_excluded(status, pod.node)
