"""Makes what a Pod needs before it can start: volumes, ports, and its containers' commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sternpost_operator.cluster.local.container import Command, Container
from sternpost_operator.cluster.local.environment import build_command, build_environment, path_replacer, port_names
from sternpost_operator.cluster.local.manifest_fields import PodSpecError
from sternpost_operator.cluster.local.paths import CONTAINER_VARIABLE, POD_VARIABLE, LocalPaths
from sternpost_operator.cluster.local.pod_spec import WORKING_DIR_ANNOTATION, ContainerSpec, PodSpec
from sternpost_operator.cluster.local.ports import PortPool
from sternpost_operator.cluster.local.processes import container_mark, pod_mark
from sternpost_operator.cluster.local.volumes import NotYetError, PodVolumes

_OWN_CONTAINERS = "sternpost-"


@dataclass(frozen=True)
class NodeContext:
    """What all Pods of a node share."""

    paths: LocalPaths
    node: str
    incarnation: str
    """Names this run of the agent."""
    environment: Mapping[str, str]
    """What containers inherit."""
    ports: PortPool
    wall: Callable[[], float] = time.time


@dataclass(frozen=True)
class Admitted:
    """Containers that can be started, in their order, and the Pod's ports by name."""

    init: list[Container]
    main: list[Container]
    ports: dict[str, int]


def port_holder(pod: PodSpec) -> str:
    """Under which name a Pod holds its ports; the node's name comes first."""
    return f"{pod.node}/{pod.uid}/"


def admit(pod: PodSpec, context: NodeContext, volumes: PodVolumes, ports: Mapping[str, int]) -> Admitted:
    """Make it all; `ports` are those the Pod has already, if any.

    Raises `PodSpecError` for what can never be, `NotYetError` and `OSError` for what may be a moment later.
    """
    volumes.make()
    taken = dict(ports) or _take_ports(pod, context.ports)
    try:
        return Admitted(
            init=[_build(spec, pod, context, volumes, taken) for spec in pod.init_containers],
            main=[_build(spec, pod, context, volumes, taken) for spec in pod.containers],
            ports=taken,
        )
    except (OSError, NotYetError, PodSpecError):
        if not ports:
            context.ports.release(port_holder(pod))
        raise


def _take_ports(pod: PodSpec, pool: PortPool) -> dict[str, int]:
    taken: dict[str, int] = {}
    try:
        for name in port_names(pod):
            taken[name] = pool.take(f"{port_holder(pod)}{name}")
    except OSError:
        pool.release(port_holder(pod))
        raise
    return taken


def _build(
    spec: ContainerSpec, pod: PodSpec, context: NodeContext, volumes: PodVolumes, ports: Mapping[str, int]
) -> Container:
    paths = context.paths
    folders = volumes.folders(spec)
    inherited = dict(context.environment)
    if spec.name.startswith(_OWN_CONTAINERS):
        # They start in the person's folder, too; a json.py that lies there is none of theirs.
        inherited["PYTHONSAFEPATH"] = "1"
    environment = build_environment(
        spec, pod, inherited=inherited, ports=ports, folders=folders, secret=volumes.secret_value
    )
    mark = container_mark(paths.state_id, pod.uid, spec.name)
    environment |= paths.markers(context.node)
    environment |= {POD_VARIABLE: pod_mark(paths.state_id, pod.uid), CONTAINER_VARIABLE: mark}
    folder = spec.working_dir or pod.annotations.get(WORKING_DIR_ANNOTATION)
    command = Command(
        arguments=build_command(spec, environment, folders),
        environment=environment,
        working_dir=Path(path_replacer(folders)(folder)) if folder else volumes.working_dir,
        log_file=paths.logs / pod.name / f"{spec.name}.log",
    )
    return Container(spec.name, mark, command)
