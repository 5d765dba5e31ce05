"""`sternpost operator`: reconcile the TrainingJobs of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import socket
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from sternpost_operator.manifests.images import Images
from sternpost_operator.operator_process.options import HARDWARE_CONDITIONS

EXIT_BAD_INPUT = 2

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def operator(  # noqa: PLR0917 -- typer passes them by name
    namespace: Annotated[
        str, typer.Option(envvar="STERNPOST_NAMESPACE", help="The operator's own namespace: of its Lease and outbox.")
    ] = "",
    identity: Annotated[
        str, typer.Option(envvar="STERNPOST_IDENTITY", help="Of this replica; the host's name by default.")
    ] = "",
    watch_namespaces: Annotated[
        str, typer.Option(envvar="STERNPOST_WATCH_NAMESPACES", metavar="NAMES", help="Comma list; empty: all.")
    ] = "",
    metrics_namespaces: Annotated[
        str,
        typer.Option(
            envvar="STERNPOST_METRICS_NAMESPACES",
            metavar="NAMES",
            help="Comma list of the namespaces from which the workers' metrics may be read; empty: any.",
        ),
    ] = "",
    image_launcher: Annotated[str, typer.Option(envvar="STERNPOST_IMAGE_LAUNCHER", metavar="IMAGE")] = "",
    image_eagle_eye: Annotated[str, typer.Option(envvar="STERNPOST_IMAGE_EAGLE_EYE", metavar="IMAGE")] = "",
    image_checkpoint: Annotated[str, typer.Option(envvar="STERNPOST_IMAGE_CHECKPOINT", metavar="IMAGE")] = "",
    image_pull_policy: Annotated[
        str, typer.Option(envvar="STERNPOST_IMAGE_PULL_POLICY", metavar="POLICY")
    ] = "IfNotPresent",
    memory_url: Annotated[
        str, typer.Option(envvar="STERNPOST_MEMORY_URL", metavar="URL", help="Of the memory service; empty: none.")
    ] = "",
    memory_shared_spaces: Annotated[
        str,
        typer.Option(
            envvar="STERNPOST_MEMORY_SHARED_SPACES",
            metavar="NAMES",
            help="Comma list of spaces that a job of any namespace may name; otherwise its space is its namespace.",
        ),
    ] = "",
    memory_token_file: Annotated[
        Path | None, typer.Option(envvar="STERNPOST_MEMORY_TOKEN_FILE", metavar="FILE", help="Bearer token for it.")
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(envvar="STERNPOST_METRICS_PORT", min=0, max=65535, help="/metrics, /healthz, /readyz.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(envvar="STERNPOST_LISTEN_HOST", help="Where those pages are served.")
    ] = "0.0.0.0",  # noqa: S104 -- the kubelet and Prometheus come from elsewhere
    node_cordon: Annotated[
        bool, typer.Option(envvar="STERNPOST_NODE_CORDON", help="Cordon nodes with evidence of bad hardware.")
    ] = False,
    node_drain: Annotated[
        bool, typer.Option(envvar="STERNPOST_NODE_DRAIN", help="Also evict the other Pods of such nodes.")
    ] = False,
    node_conditions: Annotated[
        str,
        typer.Option(
            envvar="STERNPOST_NODE_CONDITIONS",
            metavar="TYPE=STATUS,…",
            help="Node conditions that are such evidence.",
        ),
    ] = HARDWARE_CONDITIONS,
    node_uncordon_seconds: Annotated[
        float,
        typer.Option(
            envvar="STERNPOST_NODE_UNCORDON_SECONDS",
            min=0,
            help="So long must the evidence be gone before a node is given back.",
        ),
    ] = 600.0,
    node_cordon_max_share: Annotated[
        float, typer.Option(envvar="STERNPOST_NODE_CORDON_MAX_SHARE", min=0, max=1, help="Of the nodes, at most.")
    ] = 0.1,
    log_level: Annotated[str, typer.Option(envvar="STERNPOST_LOG_LEVEL", metavar="LEVEL")] = "info",
) -> None:
    """Reconcile the TrainingJobs of a Kubernetes cluster: KUBECONFIG, or the Pod that this runs in.

    Several replicas may run; one leads. Exit code: 0 told to end, 2 bad input, 3 the lease is lost, 1 anything else.
    """
    from sternpost_operator.cluster.kubernetes.configuration import NoClusterError  # noqa: PLC0415 -- a second to load
    from sternpost_operator.operator_process import process  # noqa: PLC0415
    from sternpost_operator.operator_process.logging import configure_logging  # noqa: PLC0415
    from sternpost_operator.operator_process.options import Options, names, parse_conditions  # noqa: PLC0415

    own = Images.of_version(distribution_version("sternpost"))
    try:
        configure_logging(log_level)
        options = Options(
            namespace=namespace or _own_namespace(),
            identity=identity or socket.gethostname(),
            images=Images(
                launcher=image_launcher or image_eagle_eye or own.launcher,
                eagle_eye=image_eagle_eye or own.eagle_eye,
                checkpoint=image_checkpoint or own.checkpoint,
                pull_policy=image_pull_policy,
            ),
            watch_namespaces=tuple(names(watch_namespaces)),
            metrics_namespaces=tuple(names(metrics_namespaces)),
            memory_url=memory_url,
            memory_shared_spaces=tuple(names(memory_shared_spaces)),
            memory_token_file=memory_token_file,
            port=metrics_port,
            host=host,
            cordon=node_cordon,
            drain=node_drain,
            uncordon_seconds=node_uncordon_seconds,
            cordon_max_share=node_cordon_max_share,
            hardware=parse_conditions(node_conditions),
        )
    except ValueError as error:
        typer.echo(f"sternpost operator: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    try:
        code = asyncio.run(process.run(options))
    except NoClusterError as error:
        typer.echo(f"sternpost operator: {error}", err=True)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    raise typer.Exit(code)


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError as error:
        raise ValueError("its own namespace is not known; give --namespace or STERNPOST_NAMESPACE") from error
