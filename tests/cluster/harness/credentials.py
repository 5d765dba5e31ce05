"""Who may speak to the API server: one token each, and the kubeconfig files that hold them."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

ADMIN = "admin"
_GROUPS = {
    ADMIN: ("sternpost-test-admin", "system:masters"),
    "coredns": ("sternpost-test-dns", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
}


def make_tokens(folder: Path, nodes: list[str]) -> None:
    """`tokens.csv`, as `--token-auth-file` wants it, for the components and the nodes; and `tokens.json` for `kubeconfig`."""
    users = {**_GROUPS, **{node: (f"system:node:{node}", "system:nodes") for node in nodes}}
    tokens = {who: secrets.token_hex(24) for who in users}
    lines = [f'{tokens[who]},{user},{user},"{group}"' for who, (user, group) in users.items()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("tokens.csv", "\n".join(lines) + "\n"), ("tokens.json", json.dumps(tokens))):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)


def kubeconfig(folder: Path, who: str, server: str, file: Path) -> Path:
    """Write the kubeconfig of one of them; `server` is the API server's URL."""
    token = json.loads((folder / "tokens.json").read_text())[who]
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sternpost-test",
        "clusters": [
            {
                "name": "sternpost-test",
                "cluster": {"server": server, "certificate-authority": str(folder / "ca.crt")},
            }
        ],
        "users": [{"name": who, "user": {"token": token}}],
        "contexts": [{"name": "sternpost-test", "context": {"cluster": "sternpost-test", "user": who}}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(configuration, indent=1))
    return file
