"""What a node's own conditions say of its hardware. The operator's configuration says which conditions count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sternpost_operator.recovery.circuit import breaks_circuit
from sternpost_operator.recovery.observed import NodeCondition, NodeView


def is_implausible(nodes: Sequence[NodeView]) -> bool:
    """Whether most nodes have evidence against them: then what sets it is at fault, or the configuration, not they."""
    return breaks_circuit([node.name for node in nodes if node.conditions], [node.name for node in nodes])


def bad_nodes(nodes: Sequence[NodeView]) -> Mapping[str, NodeCondition]:
    """The evidence against each node that has any now, by name."""
    return {} if is_implausible(nodes) else {node.name: node.conditions[0] for node in nodes if node.conditions}


def describe(condition: NodeCondition) -> str:
    """`GpuUnhealthy=True (Xid79: the GPU has fallen off the bus)`."""
    why = ": ".join(text for text in (condition.reason, condition.message) if text)
    return f"{condition.type}={condition.status}" + (f" ({why})" if why else "")
