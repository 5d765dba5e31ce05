"""What the node's agent understands of a Pod manifest. Whatever it cannot honour it refuses by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sternpost_operator.cluster.local import manifest_fields as fields
from sternpost_operator.cluster.local.manifest_fields import PodSpecError

WORKING_DIR_ANNOTATION = "sternpost.dev/local-working-dir"
"""On a job and its Pods: the folder that commands start in where the container names none."""

_VARIABLE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class RestartPolicy(StrEnum):
    """When an ended main container is started again."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class VolumeKind(StrEnum):
    """The volumes that a folder can stand for."""

    SCRATCH = "emptyDir"
    MEMORY = "emptyDir with medium Memory"
    HOST_PATH = "hostPath"
    SECRET = "secret"  # noqa: S105 - the name of a kind
    CLAIM = "persistentVolumeClaim"


@dataclass(frozen=True)
class Volume:
    """A volume of the Pod."""

    name: str
    kind: VolumeKind
    source: str = ""
    """Path, claim name or secret name."""
    size_limit: int | None = None
    """Bytes."""
    items: tuple[tuple[str, str], ...] = ()
    """Of a secret: keys and the relative paths of their files; all keys if empty."""
    optional: bool = False
    mode: int = 0o600


@dataclass(frozen=True)
class Mount:
    """Where a container sees a volume."""

    volume: str
    path: str
    sub_path: str = ""


@dataclass(frozen=True)
class Variable:
    """One environment variable: a value, or where it comes from."""

    name: str
    value: str = ""
    field_path: str | None = None
    secret: str | None = None
    secret_key: str = ""
    optional: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    """One container, init container or sidecar."""

    name: str
    command: tuple[str, ...]
    """Command and arguments."""
    variables: tuple[Variable, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    working_dir: str | None = None
    sidecar: bool = False
    """An init container that keeps running beside the main ones."""


@dataclass(frozen=True)
class PodSpec:
    """A Pod, checked."""

    name: str
    uid: str
    namespace: str
    node: str
    restart_policy: RestartPolicy
    grace_seconds: float
    init_containers: tuple[ContainerSpec, ...]
    containers: tuple[ContainerSpec, ...]
    volumes: dict[str, Volume] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    service_account: str = ""


def parse_pod(manifest: dict[str, Any], name: str) -> PodSpec:
    """Check the manifest of the Pod object `name`, whatever is in it; raises `PodSpecError` and nothing else."""
    metadata = fields.mapping(manifest.get("metadata"), "metadata")
    spec = fields.mapping(manifest.get("spec"), "spec")
    volumes = [
        _volume(item, f"spec.volumes[{i}]") for i, item in enumerate(fields.items(spec.get("volumes"), "spec.volumes"))
    ]
    pod = PodSpec(
        name=fields.name(metadata.get("name"), "metadata.name"),
        uid=fields.name(metadata.get("uid"), "metadata.uid"),
        namespace=fields.text(metadata.get("namespace", "default"), "metadata.namespace"),
        node=fields.name(spec.get("nodeName"), "spec.nodeName"),
        restart_policy=_restart_policy(spec.get("restartPolicy", "Always")),
        grace_seconds=fields.grace_of(spec.get("terminationGracePeriodSeconds", 30)),
        init_containers=_containers(spec.get("initContainers"), "spec.initContainers", init=True),
        containers=_containers(spec.get("containers"), "spec.containers", init=False),
        volumes={volume.name: volume for volume in volumes},
        labels=fields.text_map(metadata.get("labels"), "metadata.labels"),
        annotations=fields.text_map(metadata.get("annotations"), "metadata.annotations"),
        service_account=fields.text(spec.get("serviceAccountName", ""), "spec.serviceAccountName"),
    )
    if pod.name != name:
        raise PodSpecError(f"metadata.name is {pod.name!r}, but the object is called {name[:80]!r}")
    if not pod.containers:
        raise PodSpecError("spec.containers is empty: nothing would run")
    seen: set[str] = set()
    for container in (*pod.init_containers, *pod.containers):
        if container.name in seen:
            raise PodSpecError(f"two containers are called {container.name!r}")
        seen.add(container.name)
        for mount in container.mounts:
            if mount.volume not in pod.volumes:
                raise PodSpecError(f"container {container.name!r} mounts {mount.volume!r}, which spec.volumes lacks")
    return pod


def _containers(value: object, where: str, *, init: bool) -> tuple[ContainerSpec, ...]:
    return tuple(_container(item, f"{where}[{i}]", init=init) for i, item in enumerate(fields.items(value, where)))


def _container(value: object, where: str, *, init: bool) -> ContainerSpec:
    item = fields.mapping(value, where)
    command = (*fields.texts(item.get("command"), f"{where}.command"), *fields.texts(item.get("args"), f"{where}.args"))
    name = fields.name(item.get("name"), f"{where}.name")
    if not command or not fields.texts(item.get("command"), f"{where}.command"):
        raise PodSpecError(
            f"{where}.command ({name}) is empty: on one machine there is no image whose command could run; give it"
        )
    if fields.items(item.get("envFrom"), f"{where}.envFrom"):
        raise PodSpecError(f"{where}.envFrom ({name}) works in a real cluster only; name each variable in env")
    ports = []
    for i, entry in enumerate(fields.items(item.get("ports"), f"{where}.ports")):
        port = fields.mapping(entry, f"{where}.ports[{i}]")
        number = port.get("containerPort")
        if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 65536:
            raise PodSpecError(f"{where}.ports[{i}].containerPort: {str(number)[:40]!r} is not a port")
        ports.append((fields.text(port.get("name", f"port-{number}"), f"{where}.ports[{i}].name"), number))
    working_dir = item.get("workingDir")
    return ContainerSpec(
        name=name,
        command=command,
        variables=tuple(
            _variable(entry, f"{where}.env[{i}]")
            for i, entry in enumerate(fields.items(item.get("env"), f"{where}.env"))
        ),
        mounts=tuple(
            _mount(entry, f"{where}.volumeMounts[{i}]")
            for i, entry in enumerate(fields.items(item.get("volumeMounts"), f"{where}.volumeMounts"))
        ),
        ports=tuple(ports),
        working_dir=fields.text(working_dir, f"{where}.workingDir") if working_dir else None,
        sidecar=init and item.get("restartPolicy") == "Always",
    )


def _variable(value: object, where: str) -> Variable:
    item = fields.mapping(value, where)
    name = fields.text(item.get("name"), f"{where}.name")
    if not _VARIABLE_NAME.fullmatch(name):
        raise PodSpecError(f"{where}.name: {name[:80]!r} is not the name of a variable")
    if item.get("valueFrom") is None:
        content = item.get("value")
        return Variable(name, value="" if content is None else fields.text(content, f"{where}.value"))
    source = fields.mapping(item["valueFrom"], f"{where}.valueFrom")
    if "fieldRef" in source:
        reference = fields.mapping(source["fieldRef"], f"{where}.valueFrom.fieldRef")
        return Variable(
            name, field_path=fields.text(reference.get("fieldPath"), f"{where}.valueFrom.fieldRef.fieldPath")
        )
    if "secretKeyRef" in source:
        reference = fields.mapping(source["secretKeyRef"], f"{where}.valueFrom.secretKeyRef")
        return Variable(
            name,
            secret=fields.name(reference.get("name"), f"{where}.valueFrom.secretKeyRef.name"),
            secret_key=fields.text(reference.get("key"), f"{where}.valueFrom.secretKeyRef.key"),
            optional=reference.get("optional") is True,
        )
    raise PodSpecError(
        f"{where}.valueFrom ({name}) knows fieldRef and secretKeyRef on one machine; give a value instead"
    )


def _mount(value: object, where: str) -> Mount:
    item = fields.mapping(value, where)
    path = fields.text(item.get("mountPath"), f"{where}.mountPath").rstrip("/")
    if not path.startswith("/"):
        raise PodSpecError(f"{where}.mountPath: {path[:200]!r} is not an absolute path below /")
    if item.get("subPathExpr"):
        raise PodSpecError(f"{where}.subPathExpr works in a real cluster only; use subPath")
    return Mount(
        volume=fields.text(item.get("name"), f"{where}.name"),
        path=path,
        sub_path=fields.relative_path(item.get("subPath") or "", f"{where}.subPath"),
    )


def _volume(value: object, where: str) -> Volume:
    item = fields.mapping(value, where)
    name = fields.name(item.get("name"), f"{where}.name")
    if "emptyDir" in item:
        source = fields.mapping(item["emptyDir"] or {}, f"{where}.emptyDir")
        limit = source.get("sizeLimit")
        return Volume(
            name,
            VolumeKind.MEMORY if source.get("medium") == "Memory" else VolumeKind.SCRATCH,
            size_limit=None if limit is None else fields.parse_bytes(limit, f"{where}.emptyDir.sizeLimit"),
        )
    if "hostPath" in item:
        path = fields.text(fields.mapping(item["hostPath"], f"{where}.hostPath").get("path"), f"{where}.hostPath.path")
        if not path.startswith("/"):
            raise PodSpecError(f"{where}.hostPath.path: {path[:200]!r} is not an absolute path")
        return Volume(name, VolumeKind.HOST_PATH, source=path)
    if "persistentVolumeClaim" in item:
        claim = fields.mapping(item["persistentVolumeClaim"], f"{where}.persistentVolumeClaim").get("claimName")
        return Volume(name, VolumeKind.CLAIM, source=fields.name(claim, f"{where}.persistentVolumeClaim.claimName"))
    if "secret" in item:
        return _secret_volume(name, fields.mapping(item["secret"], f"{where}.secret"), f"{where}.secret")
    kinds = ", ".join(sorted(str(key) for key in item if key != "name")) or "nothing"
    raise PodSpecError(
        f"{where} ({name}) is {kinds[:200]}, which works in a real cluster only; on one machine use hostPath, "
        "emptyDir, persistentVolumeClaim or secret",
        reason="VolumeNotSupported",
    )


def _secret_volume(name: str, source: dict[str, Any], where: str) -> Volume:
    items = []
    for i, entry in enumerate(fields.items(source.get("items"), f"{where}.items")):
        item = fields.mapping(entry, f"{where}.items[{i}]")
        items.append(
            (
                fields.text(item.get("key"), f"{where}.items[{i}].key"),
                fields.relative_path(item.get("path"), f"{where}.items[{i}].path"),
            )
        )
    mode = source.get("defaultMode", 0o600)
    # Whatever the manifest says, no other user of the machine may read a secret: a Pod of one machine has one user.
    mode = (mode & 0o700) | 0o400 if isinstance(mode, int) and not isinstance(mode, bool) else 0o600
    return Volume(
        name,
        VolumeKind.SECRET,
        source=fields.name(source.get("secretName"), f"{where}.secretName"),
        items=tuple(items),
        optional=source.get("optional") is True,
        mode=mode,
    )


def _restart_policy(value: object) -> RestartPolicy:
    if value not in list(RestartPolicy):
        raise PodSpecError(f"spec.restartPolicy: {str(value)[:40]!r} is none of {', '.join(RestartPolicy)}")
    return RestartPolicy(str(value))
