"""Prometheus on this machine, scraping a cluster with the configuration that docs/observability.md recommends.

It finds the Pods as it would in the cluster, and reads their pages through the API server's proxy: the Pods' network need not
reach this machine.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"
_NAMESPACE, _POD, _PORT = (
    "__meta_kubernetes_namespace",
    "__meta_kubernetes_pod_name",
    "__meta_kubernetes_pod_container_port_number",
)


def documented() -> list[dict[str, Any]]:
    """The scrape configurations of the document."""
    (block,) = re.findall(r"^```yaml\n(scrape_configs:.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    configs: list[dict[str, Any]] = yaml.safe_load(block)["scrape_configs"]
    return configs


def through_api_server(kubeconfig: Path, folder: Path, interval: str) -> list[dict[str, Any]]:
    """The same, for whoever has only a kubeconfig; credentials that stand in it are written into `folder`."""
    server, access = _access(kubeconfig, folder)
    detour = [
        {
            "source_labels": [_NAMESPACE, _POD, _PORT],
            "regex": "(.+);(.+);(.+)",
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
        },
        {"source_labels": [_POD, _PORT], "separator": ":", "target_label": "instance"},
        {"target_label": "__address__", "replacement": urlsplit(server).netloc},
    ]
    result = []
    for config in documented():
        (discovery,) = config["kubernetes_sd_configs"]
        result.append(
            config
            | access
            | {
                "scheme": "https",
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "kubernetes_sd_configs": [discovery | {"kubeconfig_file": str(kubeconfig)}],
                "relabel_configs": [*config["relabel_configs"], *detour],
            }
        )
    return result


def _access(kubeconfig: Path, folder: Path) -> tuple[str, dict[str, Any]]:
    """The API server's address, and how to be let in."""
    content = yaml.safe_load(kubeconfig.read_text())
    (context,) = (each["context"] for each in content["contexts"] if each["name"] == content["current-context"])
    (cluster,) = (each["cluster"] for each in content["clusters"] if each["name"] == context["cluster"])
    (user,) = (each["user"] for each in content["users"] if each["name"] == context["user"])
    tls = {"ca_file": _file(cluster, "certificate-authority", folder)}
    if "token" in user:
        return cluster["server"], {"tls_config": tls, "authorization": {"credentials": user["token"]}}
    tls |= {
        "cert_file": _file(user, "client-certificate", folder),
        "key_file": _file(user, "client-key", folder),
    }
    return cluster["server"], {"tls_config": tls}


def _file(entry: dict[str, Any], name: str, folder: Path) -> str:
    if name in entry:
        return str(entry[name])
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
    return str(path)
