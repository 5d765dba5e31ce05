"""How to reach the API server: the Pod's own service account, or a kubeconfig."""

from __future__ import annotations

import os

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

CONNECTIONS = 50
"""Requests at a time, beside watches."""


class NoClusterError(Exception):
    """Nothing says where the API server is."""


async def load_configuration() -> Configuration:
    """From `KUBECONFIG` if it is set, else from the Pod that this runs in, else from `~/.kube/config`.

    Raises `NoClusterError`.
    """
    configuration = Configuration()
    file = os.environ.get("KUBECONFIG")
    try:
        if file or "KUBERNETES_SERVICE_HOST" not in os.environ:
            await load_kube_config(config_file=file, client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError) as error:
        raise NoClusterError(
            f"no API server: {error}; run it in a Pod with a service account, or set KUBECONFIG to a kubeconfig file"
        ) from error
    configuration.connection_pool_maxsize = CONNECTIONS
    configuration.retries = None
    return configuration
