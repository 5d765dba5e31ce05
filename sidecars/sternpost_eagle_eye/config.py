"""The sidecar's settings, from its environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from sternpost_eagle_eye.wire import Seconds, Wire

SURE_SECONDS = 30.0
"""Who suffers a slow node for so long or longer has the time to be as sure as anybody."""


class ConfigError(Exception):
    """A variable of the environment is missing or makes no sense."""


class HangPolicy(Wire):
    """No step for `factor` times the longest interval seen in the phase, and at least `minSeconds`."""

    factor: float = Field(5, ge=1.5, le=100)
    min_seconds: Seconds = 60
    init_seconds: Seconds = 600
    """The limit before the first step of an attempt, and in a phase that has not been seen to its end yet."""


class SlowPolicy(Wire):
    """A worker whose own compute time is apart from its peers' is named as soon as that is sure; when it is left is said here."""

    ratio: float = Field(1.5, ge=1.05, le=100)
    """Times the peers' median, at least, that its compute time must be where nothing but slowness is seen of it."""
    seconds: Seconds = 120
    """How long a slow node is suffered before it is evicted; half of that where its hardware says why."""
    min_steps: int = Field(8, ge=3, le=10_000)
    """How many slow steps there must have been."""

    def scale(self) -> float:
        """Share of the usual certainty that is asked for: whoever leaves a node soon cannot wait for all of it."""
        return min(1.0, self.seconds / SURE_SECONDS)


class EagleEyePolicy(Wire):
    """`spec.eagleEye` of the TrainingJob."""

    detect: bool = True
    interval_seconds: float = Field(1, ge=0.1, le=60)
    hang: HangPolicy = HangPolicy()
    slow: SlowPolicy = SlowPolicy()


Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(Wire):
    """Everything a sidecar knows before it has read an Attempt."""

    job: str = Field(min_length=1)
    job_uid: str = Field(min_length=1)
    namespace: str = Field(min_length=1)
    pod: str = Field(min_length=1)
    pod_uid: str = Field(min_length=1)
    node: str = Field(min_length=1)
    control_dir: Path
    shm_dir: Path | None = None
    control_plane: str = Field(min_length=1)
    token_file: Path
    listen_host: str = "0.0.0.0"  # noqa: S104 - worker 0 is reached by the other Pods
    port: Port
    checkpoint_port: Port | None = None
    metrics_ports: tuple[Port, ...] = Field(max_length=64)
    """Of the local ranks, in order."""
    policy: EagleEyePolicy = EagleEyePolicy()
    kubernetes_host: str | None = None
    kubernetes_port: Port | None = None
    service_account_dir: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    """Where the Pod's account is mounted, as everywhere in Kubernetes."""


_VARIABLES = {
    "job": "STERNPOST_JOB",
    "job_uid": "STERNPOST_JOB_UID",
    "namespace": "STERNPOST_NAMESPACE",
    "pod": "STERNPOST_POD",
    "pod_uid": "STERNPOST_POD_UID",
    "node": "STERNPOST_NODE",
    "control_dir": "STERNPOST_CONTROL_DIR",
    "shm_dir": "STERNPOST_SHM_DIR",
    "control_plane": "STERNPOST_CONTROL_PLANE",
    "token_file": "STERNPOST_TOKEN_FILE",
    "listen_host": "STERNPOST_LISTEN_HOST",
    "port": "STERNPOST_PORT_EAGLE_EYE",
    "checkpoint_port": "STERNPOST_PORT_CHECKPOINT",
    "kubernetes_host": "KUBERNETES_SERVICE_HOST",
    "kubernetes_port": "KUBERNETES_SERVICE_PORT",
}


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Read the contract's variables. Raises ConfigError, which names the variable and what is wrong with it."""
    values: dict[str, object] = {
        field: environ[variable] for field, variable in _VARIABLES.items() if environ.get(variable)
    }
    ports: list[str] = []
    while len(ports) < 64 and (port := environ.get(f"STERNPOST_PORT_METRICS_{len(ports)}")):
        ports.append(port)
    values["metrics_ports"] = ports
    try:
        values["policy"] = EagleEyePolicy.model_validate_json(environ.get("STERNPOST_EAGLE_EYE") or "{}")
    except ValidationError as error:
        raise ConfigError(f"STERNPOST_EAGLE_EYE is not a valid spec.eagleEye: {_first(error)}") from error
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
        python_name = next((name for name in _VARIABLES if name.replace("_", "") == field.lower()), field)
        variable = _VARIABLES.get(python_name, "STERNPOST_PORT_METRICS_*")
        raise ConfigError(f"{variable}: {_first(error)}; the operator sets it in every Pod of a job") from error


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
