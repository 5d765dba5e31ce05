"""Prometheus on this machine, scraping a cluster with the configuration that docs/observability.md recommends.

Debian builds its Prometheus without the discovery of Kubernetes: here the Pods are asked for with kubectl, and handed over with
the labels that the discovery gives them; what the document does with these is up to Prometheus. Pages are read through the API
server's proxy: the Pods' network need not reach this machine.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kube import Kube, Object

DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"
_META = "__meta_kubernetes_"
_NAMESPACE, _POD, _PORT = f"{_META}namespace", f"{_META}pod_name", f"{_META}pod_container_port_number"


def documented() -> list[dict[str, Any]]:
    """The scrape configurations of the document."""
    (block,) = re.findall(r"^```yaml\n(scrape_configs:.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    configs: list[dict[str, Any]] = yaml.safe_load(block)["scrape_configs"]
    return configs


def discovered(pod: Object) -> Iterator[dict[str, Any]]:
    """A target for each port of each container, as `kubernetes_sd_configs` with `role: pod` finds them."""
    address = pod.get("status", {}).get("podIP")
    if not address:
        return
    metadata, spec = pod["metadata"], pod["spec"]
    common = {
        _NAMESPACE: metadata["namespace"],
        _POD: metadata["name"],
        f"{_META}pod_node_name": spec.get("nodeName", ""),
    }
    for key, value in (metadata.get("labels") or {}).items():
        name = re.sub(r"\W", "_", key, flags=re.ASCII)
        common |= {f"{_META}pod_label_{name}": value, f"{_META}pod_labelpresent_{name}": "true"}
    for init, container in [(True, each) for each in spec.get("initContainers") or ()] + [
        (False, each) for each in spec["containers"]
    ]:
        for port in container.get("ports") or ():
            own = {
                f"{_META}pod_container_name": container["name"],
                f"{_META}pod_container_port_name": port.get("name", ""),
                _PORT: str(port["containerPort"]),
                f"{_META}pod_container_init": str(init).lower(),
            }
            yield {"targets": [f"{address}:{port['containerPort']}"], "labels": common | own}


class ClusterTargets:
    """The documented configuration, and the Pods that it finds."""

    def __init__(self, kube: Kube, folder: Path, interval: str) -> None:
        """Files are written into `folder`: targets, and credentials that stand in the kubeconfig."""
        self._kube = kube
        self._files: list[tuple[Path, list[str]]] = []
        self.configs = [self._config(each, folder, interval) for each in documented()]
        self.refresh()

    def refresh(self) -> None:
        """Look for Pods once."""
        pods = self._kube.items("pods")
        for file, namespaces in self._files:
            groups = [
                group
                for pod in pods
                if not namespaces or pod["metadata"]["namespace"] in namespaces
                for group in discovered(pod)
            ]
            new = file.with_suffix(".new")
            new.write_text(json.dumps(groups))
            new.replace(file)

    def _config(self, config: dict[str, Any], folder: Path, interval: str) -> dict[str, Any]:
        (discovery,) = config["kubernetes_sd_configs"]
        assert discovery["role"] == "pod"
        file = folder / f"{config['job_name']}.json"
        self._files.append((file, discovery.get("namespaces", {}).get("names", [])))
        server, access = _access(self._kube.kubeconfig, folder)
        detour = [
            {
                "source_labels": [_NAMESPACE, _POD, _PORT],
                "regex": "(.+);(.+);(.+)",
                "target_label": "__metrics_path__",
                "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            },
            {"source_labels": ["__address__"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": urlsplit(server).netloc},
        ]
        return {
            **{name: value for name, value in config.items() if name != "kubernetes_sd_configs"},
            **access,
            "scheme": "https",
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "file_sd_configs": [{"files": [str(file)], "refresh_interval": "1s"}],
            "relabel_configs": [*config["relabel_configs"], *detour],
        }


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
