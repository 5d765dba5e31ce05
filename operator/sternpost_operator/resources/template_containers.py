"""What is wrong with the volumes and containers of a Pod template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sternpost_operator.resources import reserved
from sternpost_operator.resources.explain import shown
from sternpost_operator.resources.location import Location, Problems
from sternpost_operator.resources.mount_paths import is_below
from sternpost_operator.resources.quantity import parse_bytes
from sternpost_operator.resources.template_schema import MAX_CONTAINERS
from sternpost_operator.resources.training_job import TRAINER_CONTAINER

_RESTART_POLICIES = ("Always", "OnFailure", "Never")


def check_volumes(volumes: Any) -> tuple[set[str], list[tuple[Location, str]]]:
    """The volumes' names, and what is wrong with them."""
    at: Location = ("spec", "volumes")
    if volumes is None:
        return set(), []
    if not isinstance(volumes, list):
        return set(), [(at, "must be a list")]
    names: set[str] = set()
    problems: list[tuple[Location, str]] = []
    for index, volume in enumerate(volumes):
        name = volume.get("name") if isinstance(volume, dict) else None
        if not isinstance(name, str) or not name:
            problems.append(((*at, index), "must be an object with a name"))
        elif name in names:
            problems.append(((*at, index, "name"), f"there is another volume {name!r}"))
        elif name.startswith(reserved.NAME_PREFIX):
            problems.append(((*at, index, "name"), f"names that begin with {reserved.NAME_PREFIX} are Sternpost's own"))
        else:
            names.add(name)
    return names, problems


def check_containers(spec: Mapping[str, Any], volumes: set[str], ranks: int) -> Problems:
    """All containers, with the names of the volumes that they may mount."""
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        yield from _containers(group, spec.get(group), names, volumes, ranks)


def _containers(group: str, containers: Any, names: set[str], volumes: set[str], ranks: int) -> Problems:
    at: Location = ("spec", group)
    if containers is None:
        return
    if not isinstance(containers, list):
        yield at, "must be a list"
        return
    if len(containers) > MAX_CONTAINERS:
        yield at, f"has {len(containers)} entries; at most {MAX_CONTAINERS} are allowed"
    for index, container in enumerate(containers):
        here = (*at, index)
        name = container.get("name") if isinstance(container, dict) else None
        if not isinstance(name, str) or not name:
            yield here, "must be an object with a name"
            continue
        if name in names:
            yield (*here, "name"), f"there is another container {name!r}"
        if name.startswith(reserved.NAME_PREFIX):
            yield (*here, "name"), f"names that begin with {reserved.NAME_PREFIX} are Sternpost's own"
        if group == "initContainers" and name == TRAINER_CONTAINER:
            yield (*here, "name"), f"{TRAINER_CONTAINER} must be one of spec.containers"
        names.add(name)
        if group == "initContainers" and container.get("restartPolicy") not in (None, *_RESTART_POLICIES):
            # The API server passes over what it does not know here, and the container would be no sidecar.
            wanted = ", ".join(_RESTART_POLICIES)
            yield (
                (*here, "restartPolicy"),
                f"is {shown(container['restartPolicy'])}; must be one of {wanted}, or left out",
            )
        for field in ("command", "args"):
            yield from _strings(here, container, field)
        if container.get("securityContext") is not None and not isinstance(container["securityContext"], dict):
            yield (*here, "securityContext"), "must be an object"
        if container.get("envFrom") is not None and not isinstance(container["envFrom"], list):
            yield (*here, "envFrom"), "must be a list"
        yield from _environment(here, container, trainer=name == TRAINER_CONTAINER)
        yield from _mounts(here, container, volumes)
        yield from _ports(here, container, ranks)


def _strings(at: Location, container: Mapping[str, Any], field: str) -> Problems:
    value = container.get(field)
    if value is None:
        return
    if not isinstance(value, list):
        yield (*at, field), "must be a list of strings"
        return
    for index, text in enumerate(value):
        if not isinstance(text, str):
            yield (*at, field, index), f"is {shown(text)}; must be a string, put it in quotes"


def _entries(
    at: Location, container: Mapping[str, Any], field: str
) -> tuple[list[tuple[Location, Mapping[str, Any]]], list[tuple[Location, str]]]:
    """The objects of a list, each with its place, and what is no object."""
    value = container.get(field)
    if value is None:
        return [], []
    if not isinstance(value, list):
        return [], [((*at, field), "must be a list")]
    places = [((*at, field, index), entry) for index, entry in enumerate(value)]
    wrong = [(place, "must be an object") for place, entry in places if not isinstance(entry, dict)]
    return [(place, entry) for place, entry in places if isinstance(entry, dict)], wrong


def _environment(at: Location, container: Mapping[str, Any], *, trainer: bool) -> Problems:
    entries, wrong = _entries(at, container, "env")
    yield from wrong
    for here, entry in entries:
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            yield here, "a variable needs a name"
            continue
        if trainer and reserved.is_reserved_variable(name):
            yield (*here, "name"), f"{name} is set by Sternpost; choose another name"
        value = entry.get("value")
        if value is not None and not isinstance(value, str):
            yield (*here, "value"), f"is {shown(value)}; must be a string, put it in quotes"
        if value and entry.get("valueFrom") is not None:
            yield here, "give either value or valueFrom"


def _mounts(at: Location, container: Mapping[str, Any], volumes: set[str]) -> Problems:
    entries, wrong = _entries(at, container, "volumeMounts")
    yield from wrong
    paths: set[str] = set()
    for here, entry in entries:
        name, path = entry.get("name"), entry.get("mountPath")
        if not isinstance(name, str) or name not in volumes:
            known = f"there are {', '.join(sorted(volumes))}" if volumes else "spec.volumes has none"
            yield (*here, "name") if "name" in entry else here, f"no volume {name!r}; {known}"
        if not isinstance(path, str) or not path:
            yield here, "a mount needs mountPath"
            continue
        if is_below(path, reserved.ROOT_PATH):
            yield (*here, "mountPath"), f"{reserved.ROOT_PATH} is Sternpost's own; choose another folder"
        if path in paths:
            yield (*here, "mountPath"), f"something else is mounted at {path}"
        paths.add(path)


def _ports(at: Location, container: Mapping[str, Any], ranks: int) -> Problems:
    entries, wrong = _entries(at, container, "ports")
    yield from wrong
    for here, entry in entries:
        port, name = entry.get("containerPort"), entry.get("name")
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            yield here, "a port needs containerPort, 1 to 65535"
            continue
        for taken, what_for in reserved.reserved_ports(ranks).items():
            if port in taken:
                yield (*here, "containerPort"), f"{port} is Sternpost's own, for {what_for}; choose another port"
        if name is not None and not isinstance(name, str):
            yield (*here, "name"), "must be a string"
        elif name in reserved.reserved_port_names(ranks):
            yield (*here, "name"), f"the port name {name!r} is Sternpost's own; choose another"


def check_trainer(spec: Mapping[str, Any], shared_memory: str | None) -> Problems:
    """The container that runs the training."""
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        yield (
            ("spec", "containers") if "containers" in spec else ("spec",),
            (f"needs containers, a list with a container named {TRAINER_CONTAINER}; it runs the training"),
        )
        return
    named = [
        (index, item)
        for index, item in enumerate(containers)
        if isinstance(item, dict) and item.get("name") == TRAINER_CONTAINER
    ]
    if not named:
        found = ", ".join(
            repr(item["name"]) for item in containers if isinstance(item, dict) and isinstance(item.get("name"), str)
        )
        yield (
            ("spec", "containers"),
            f"no container is named {TRAINER_CONTAINER}, which runs the training; there is {found or 'none with a name'}",
        )
        return
    index, trainer = named[0]
    at: Location = ("spec", "containers", index)
    if trainer.get("command") in (None, []):
        yield at, "needs command: the launcher starts it, and cannot know the image's own entrypoint"
    yield from _memory(at, trainer, shared_memory)
    if trainer.get("restartPolicy") is not None:
        yield (*at, "restartPolicy"), "must be left out: the Pod's is OnFailure"


def _memory(at: Location, trainer: Mapping[str, Any], shared_memory: str | None) -> Problems:
    resources = trainer.get("resources")
    if resources is None:
        return
    limits = resources.get("limits") if isinstance(resources, dict) else resources
    if limits is None:
        return
    if not isinstance(limits, dict):
        yield (*at, "resources"), "must be an object, and its limits too"
        return
    if shared_memory is None or limits.get("memory") is None:
        return
    try:
        enough = parse_bytes(str(limits["memory"])) > parse_bytes(shared_memory)
    except ValueError:
        return  # a quantity of a form that only the API server knows
    if not enough:
        yield (
            (*at, "resources", "limits", "memory"),
            f"is {limits['memory']}, not more than checkpoint.sharedMemory ({shared_memory}), which counts towards it",
        )
