"""Environment and command of a container on this machine: paths, ports and `$(VARIABLES)`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sternpost_operator.cluster.local.manifest_fields import PodSpecError
from sternpost_operator.cluster.local.pod_spec import ContainerSpec, PodSpec, Variable

ADDRESS = "127.0.0.1"
PORT_PREFIX = "STERNPOST_PORT_"
_CONTROL_PLANE = "STERNPOST_CONTROL_PLANE"
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


def port_variable(name: str) -> str:
    """`metrics-0` is `STERNPOST_PORT_METRICS_0`."""
    return PORT_PREFIX + name.upper().replace("-", "_")


def port_names(pod: PodSpec) -> tuple[str, ...]:
    """Names of all ports a Pod needs: those its containers declare, and those only its environment mentions."""
    containers = (*pod.init_containers, *pod.containers)
    declared = dict.fromkeys(name for container in containers for name, _ in container.ports)
    known = {port_variable(name) for name in declared}
    for container in containers:
        for variable in container.variables:
            if variable.name.startswith(PORT_PREFIX) and variable.name not in known:
                known.add(variable.name)
                declared[variable.name.removeprefix(PORT_PREFIX).lower().replace("_", "-")] = None
    return tuple(declared)


def path_replacer(folders: Mapping[str, Path]) -> Callable[[str], str]:
    """A function that puts real folders for mount paths, wherever they stand as a path or the beginning of one."""
    if not folders:
        return lambda text: text
    # The longest first: a mount may lie within another one.
    mounts = "|".join(re.escape(path) for path in sorted(folders, key=len, reverse=True))
    pattern = re.compile(rf"(?:(?<![\w.~/-])|(?<=://))(?:{mounts})(?=/|$|[^\w.~-]|\.(?:$|[^\w/]))")
    return lambda text: pattern.sub(lambda match: str(folders[match.group()]), text)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it: an unknown name stays as it is, `$$` is a dollar."""

    def value(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return variables.get(match.group(1), match.group())

    return _REFERENCE.sub(value, text)


def field_value(path: str, pod: PodSpec) -> str:
    """A field of the downward API; raises `PodSpecError` for one that there is not."""
    fields = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": pod.node,
        "spec.serviceAccountName": pod.service_account,
        "status.podIP": ADDRESS,
        "status.podIPs": ADDRESS,
        "status.hostIP": ADDRESS,
        "status.hostIPs": ADDRESS,
    }
    if path in fields:
        return fields[path]
    match = _SUBSCRIPT.fullmatch(path)
    if match is None:
        raise PodSpecError(f"fieldPath {path[:80]!r} is none of {', '.join(fields)}, metadata.labels['…']")
    return (pod.labels if match[1] == "labels" else pod.annotations).get(match[2], "")


def build_environment(
    container: ContainerSpec,
    pod: PodSpec,
    *,
    inherited: Mapping[str, str],
    ports: Mapping[str, int],
    folders: Mapping[str, Path],
    secret: Callable[[Variable], str | None],
) -> dict[str, str]:
    """Everything a container's process finds in its environment.

    `inherited` is the base; `ports` maps names to this machine's ports, `folders` mount paths to its folders;
    `secret` reads the value a variable refers to, None where it is optional and missing.
    """
    replace = path_replacer(folders)
    by_variable = {port_variable(name): str(port) for name, port in ports.items()}
    own: dict[str, str] = {}
    for variable in container.variables:
        if variable.name in by_variable:
            own[variable.name] = by_variable[variable.name]
        elif variable.field_path is not None:
            own[variable.name] = field_value(variable.field_path, pod)
        elif variable.secret is not None:
            content = secret(variable)
            if content is not None:
                own[variable.name] = content
        elif variable.name == _CONTROL_PLANE:
            own[variable.name] = variable.value  # a real path already, perhaps below one that a volume hides
        else:
            own[variable.name] = expand(replace(variable.value), own)
    return {"PYTHONUNBUFFERED": "1"} | dict(inherited) | {"GLOO_SOCKET_IFNAME": "lo"} | own


def build_command(
    container: ContainerSpec, variables: Mapping[str, str], folders: Mapping[str, Path]
) -> tuple[str, ...]:
    """The argument list, with real folders and the container's variables."""
    replace = path_replacer(folders)
    return tuple(expand(replace(argument), variables) for argument in container.command)


def inherited_environment(environment: Mapping[str, str], python_folder: Path) -> dict[str, str]:
    """What a container gets of its agent's environment: the person's own, without anything of Sternpost's.

    `python3` is the interpreter that Sternpost itself runs in.
    """
    inherited = {name: value for name, value in environment.items() if not name.startswith("STERNPOST_")}
    path = inherited.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
    inherited["PATH"] = f"{python_folder}:{path}"
    return inherited
