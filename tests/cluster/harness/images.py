"""Container images: a base from Debian's packages, the project's own Dockerfile on top of it, and small ones for tests."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from harness import folders, pip_settings
from harness.commands import run
from harness.report import step

REGISTRY = "docker.io/"
"""What a name without a registry stands for; such images are never pulled here."""
VERSION = "0.1.0"
PAUSE_IMAGE = "localhost/sternpost-test/pause:1"
BASE_IMAGE = "localhost/sternpost-test/base"
TRAINER_IMAGE = "sternpost/test-trainer:1"
"""Python and nothing else: the torch environment is mounted, see `trainer.py`."""
REDIS_IMAGE = "sternpost/test-redis:1"
TARGETS = ("operator", "eagle-eye", "checkpoint", "memory")
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
SUITE = "bookworm"

_TRAINER = """
ARG BASE
FROM ${BASE}
WORKDIR /tmp
USER 65532:65532
"""
_REDIS = """
ARG BASE
FROM ${BASE}
RUN apt-get update -q && apt-get install -qy --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/*
USER 65532:65532
WORKDIR /data
CMD ["redis-server", "--dir", "/data"]
"""
_PAUSE = """
FROM scratch
COPY pause /pause
USER 65532:65532
ENTRYPOINT ["/pause"]
"""


def project_image(target: str) -> str:
    """The name that the chart uses."""
    return f"sternpost/{target}:{VERSION}"


def buildah(*arguments: str | Path, timeout: float = 1200) -> str:
    """Run buildah on a storage of our own in the cache."""
    storage = folders.cache() / "buildah"
    return run(
        *("buildah", "--root", storage / "storage", "--runroot", storage / "run", "--storage-driver", "overlay"),
        *arguments,
        timeout=timeout,
    )


def image_id(image: str) -> str | None:
    """The id of an image in our storage; None when it is not there."""
    for entry in json.loads(buildah("images", "--json") or "[]") or []:
        if image in (entry.get("names") or []):
            return str(entry["id"])
    return None


def base() -> str:
    """The image that all others start from: Debian's Python, made by mmdebstrap once and kept."""
    key = hashlib.sha256("\n".join((SUITE, *BASE_PACKAGES)).encode()).hexdigest()[:12]
    name = f"{BASE_IMAGE}:{key}"
    if image_id(name):
        return name
    archive = folders.cache() / f"base-{key}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with step("making the base image's files (mmdebstrap)"):
            made = archive.with_suffix(".new.tar")
            run("mmdebstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", SUITE, made, timeout=1200)
            made.replace(archive)
    with step("making the base image"), tempfile.TemporaryDirectory() as folder:
        shutil.copy(archive, Path(folder) / "base.tar")
        _build(name, "FROM scratch\nADD base.tar /\n", Path(folder))
    return name


def pause(program: Path) -> str:
    """The image of a Pod's sandbox; `program` is the built `pause`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, Path(folder) / "pause")
        _build(PAUSE_IMAGE, _PAUSE, Path(folder))
    return PAUSE_IMAGE


def trainer() -> str:
    """The image that the tests' trainers run in."""
    with tempfile.TemporaryDirectory() as folder:
        _build(REGISTRY + TRAINER_IMAGE, _TRAINER, Path(folder), arguments={"BASE": base()})
    return REGISTRY + TRAINER_IMAGE


def redis() -> str:
    """Debian's Redis."""
    with step(f"building {REDIS_IMAGE}"), tempfile.TemporaryDirectory() as folder:
        _build(REGISTRY + REDIS_IMAGE, _REDIS, Path(folder), arguments={"BASE": base()})
    return REGISTRY + REDIS_IMAGE


def project(target: str) -> str:
    """One target of the project's Dockerfile; unchanged steps come from the cache."""
    name = REGISTRY + project_image(target)
    with step(f"building {project_image(target)}"):
        _build(name, None, folders.ROOT, arguments={"BASE": base()}, target=target)
    return name


def _build(
    name: str,
    dockerfile: str | None,
    context: Path,
    *,
    arguments: dict[str, str] | None = None,
    target: str | None = None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = context / "Dockerfile"
        if dockerfile is not None:
            file = Path(folder) / "Dockerfile"
            file.write_text(dockerfile)
        buildah(
            *("build", "--quiet", "--isolation", "chroot", "--layers", "--format", "docker", "--pull-never"),
            *pip_settings.mounts(Path(folder)),
            *(word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")),
            *(("--target", target) if target else ()),
            *("--tag", name, "--file", file, context),
        )


def archive(name: str) -> Path:
    """The image as a file that `ctr images import` reads; made anew only when the image has changed."""
    identity = image_id(name)
    if identity is None:
        raise LookupError(f"no image {name} was built")
    folder = folders.cache() / "archives" / name.replace("/", "_").replace(":", "_")
    file = folder / f"{identity}.tar"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made = folder / "new"
        buildah("push", "--quiet", name, f"docker-archive:{made}:{name}")
        made.replace(file)
    return file


ALL = (*TARGETS, "redis", "trainer")


def build(name: str) -> str:
    """Build one of `ALL`; returns its full name."""
    match name:
        case "redis":
            return redis()
        case "trainer":
            return trainer()
        case _:
            return project(name)
