"""Persistent volumes for whoever claims one: folders that all nodes see, so that a Pod finds its data on any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COUNT = 4


def make(folder: Path) -> dict[str, Any]:
    """Make the folders; returns the PersistentVolumes as a List. They have no storage class, as a claim without one wants."""
    items = []
    for number in range(1, COUNT + 1):
        place = folder / f"volume-{number}"
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        items.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": place.name},
                "spec": {
                    "capacity": {"storage": "10Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": str(place), "type": "Directory"},
                },
            }
        )
    return {"apiVersion": "v1", "kind": "List", "items": items}
