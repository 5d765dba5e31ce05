"""Volumes of a Pod as folders of this machine."""

from __future__ import annotations

import base64
import binascii
import shutil
from collections.abc import Mapping
from pathlib import Path

from sternpost_operator.cluster.local.json_files import GarbageError, read_object, write_bytes
from sternpost_operator.cluster.local.manifest_fields import PodSpecError
from sternpost_operator.cluster.local.paths import LocalPaths, make_private_folder
from sternpost_operator.cluster.local.pod_spec import ContainerSpec, PodSpec, Variable, Volume, VolumeKind


class NotYetError(Exception):
    """Something the Pod needs is not there yet; try again."""


class PodVolumes:
    """The folders of one Pod; `make` before its containers start, `remove` after the last one ended."""

    def __init__(self, paths: LocalPaths, pod: PodSpec) -> None:
        self._paths = paths
        self._pod = pod
        self._scratch = paths.node_scratch(pod.node) / pod.uid
        self._memory = paths.node_memory(pod.node) / pod.uid
        self._folders: dict[str, Path] = {}

    @property
    def working_dir(self) -> Path:
        """Where commands start when nothing else is named."""
        return self._scratch / "work"

    def make(self) -> None:
        """Make every volume; raises `PodSpecError` for one that cannot be, `NotYetError`, `OSError`."""
        self.working_dir.mkdir(parents=True, exist_ok=True)
        for volume in self._pod.volumes.values():
            self._folders[volume.name] = self._make(volume)

    def folders(self, container: ContainerSpec) -> dict[str, Path]:
        """Real folders by the mount paths of a container; raises `PodSpecError`, `OSError`."""
        found = {}
        for mount in container.mounts:
            folder = self._folders[mount.volume]
            if mount.sub_path:
                folder /= mount.sub_path
                if not folder.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                if not folder.resolve().is_relative_to(self._folders[mount.volume].resolve()):
                    raise PodSpecError(f"subPath {mount.sub_path!r} of volume {mount.volume!r} leads out of it")
            found[mount.path] = folder
        return found

    def remove(self) -> None:
        """Remove what belongs to this Pod alone."""
        shutil.rmtree(self._memory, ignore_errors=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def secret_value(self, variable: Variable) -> str | None:
        """The value that a variable takes from a secret; raises `NotYetError`, `PodSpecError`."""
        content = self._secret(variable.secret or "", optional=variable.optional)
        value = content.get(variable.secret_key)
        if value is None:
            if variable.optional:
                return None
            raise NotYetError(f"secret {variable.secret!r} has no key {variable.secret_key!r}")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise PodSpecError(f"key {variable.secret_key!r} of secret {variable.secret!r} is not text") from error

    def _make(self, volume: Volume) -> Path:
        match volume.kind:
            case VolumeKind.SCRATCH:
                folder = self._scratch / "volumes" / volume.name
                folder.mkdir(parents=True, exist_ok=True)
            case VolumeKind.MEMORY:
                folder = self._memory / volume.name
                self._check_memory(volume)
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            case VolumeKind.CLAIM:
                folder = self._paths.volumes / volume.source
                folder.mkdir(parents=True, exist_ok=True)
            case VolumeKind.HOST_PATH:
                folder = Path(volume.source)
                if not folder.exists():
                    raise PodSpecError(
                        f"volume {volume.name!r}: there is no {volume.source} on this machine; create it",
                        reason="HostPathMissing",
                    )
            case VolumeKind.SECRET:
                folder = self._scratch / "volumes" / volume.name
                self._write_secret(volume, folder)
        return folder

    def _check_memory(self, volume: Volume) -> None:
        make_private_folder(self._paths.memory_dir)
        if volume.size_limit is None:
            return
        free = shutil.disk_usage(self._paths.memory_dir).free
        if free < volume.size_limit:
            raise PodSpecError(
                f"volume {volume.name!r} asks for {_mebibytes(volume.size_limit)} of memory, but {self._paths.memory_dir} has "
                f"{_mebibytes(free)} free; make spec.checkpoint.sharedMemory smaller or /dev/shm larger",
                reason="SharedMemoryTooSmall",
            )

    def _write_secret(self, volume: Volume, folder: Path) -> None:
        content = self._secret(volume.source, optional=volume.optional)
        items = volume.items or tuple((key, key) for key in content)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key, path in items:
            if key not in content:
                if volume.optional:
                    continue
                raise NotYetError(f"secret {volume.source!r} has no key {key!r}")
            if "/" in key or key in ("", ".", ".."):
                raise PodSpecError(f"secret {volume.source!r}: {key[:80]!r} cannot be the name of a file")
            target = folder / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes(target, content[key], mode=volume.mode)

    def _secret(self, name: str, *, optional: bool) -> Mapping[str, bytes]:
        try:
            found = read_object(self._paths.objects / "secrets" / f"{name}.json")
        except GarbageError as error:
            raise NotYetError(str(error)) from error
        if found is None:
            if optional:
                return {}
            raise NotYetError(f"there is no secret {name!r} yet")
        data = found.get("data")
        if not isinstance(data, dict):
            raise NotYetError(f"secret {name!r} has no data")
        try:
            return {str(key): base64.b64decode(value, validate=True) for key, value in data.items()}
        except (binascii.Error, TypeError, ValueError) as error:
            raise NotYetError(f"secret {name!r} is not in base64") from error


def _mebibytes(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"
