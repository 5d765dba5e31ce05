"""Hostile storages: refused with a clear error that names a file, in bounded memory, and nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folder `attacks`, which is no package of the project

from attacks import bombs, chains, documents  # noqa: F401 # they register themselves
from attacks.storage import ATTACKS, healthy

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.transfer.folder import write_folder

MEMORY_BYTES = 512 * 2**20
"""Of address space beyond what the process has when it has loaded everything."""
GROWTH_BYTES = 192 * 2**20
"""Of memory really used, over all attacks together."""

_RUN = """
import json, resource, sys, traceback
from pathlib import Path
import numba, numpy, zstandard
from sternpost_checkpoint.codec.base import by_name, names
for name in names():
    by_name(name)
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.names import generation_label
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.transfer.folder import write_folder
from sternpost_checkpoint.verify import verify_generation

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

root, limit = Path(sys.argv[1]), int(sys.argv[2])
# The kernels are compiled by a healthy storage first.
def look(folder):
    problems, restored = [], ""
    catalog = Catalog(FileStore(folder))
    for files in catalog.generations():
        problems += verify_generation(catalog, files.generation)
        try:
            problems += map(str, GenerationReader(catalog, files.generation).tensors(lambda *_: None))
        except CheckpointError as error:
            problems.append(str(error))
        try:
            write_folder(GenerationReader(catalog, files.generation), folder / "out" / generation_label(files.generation))
        except CheckpointError as error:
            restored += f"{type(error).__name__}: {error}\\n"
    return {"problems": problems, "restored": restored, "files": sorted(p.name for p in (folder / "out").rglob("*.json"))}

results = {"healthy": look(root / "healthy")}
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (used() + limit, used() + limit))
for folder in sorted(path for path in root.iterdir() if path.name != "healthy"):
    try:
        results[folder.name] = look(folder)
    except BaseException as error:
        results[folder.name] = {"crash": traceback.format_exc()[-1500:]}
print(json.dumps({"growth": peak() - before, "results": results}))
"""


@pytest.fixture(scope="module")
def outcome() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="test-of-sternpost-", dir="/dev/shm") as folder:  # thousands of syncs
        yield run_all(Path(folder))


def run_all(root: Path) -> dict[str, Any]:
    """Make every storage, and read them all in one process that may have little memory."""
    healthy(root / "healthy")
    for attack in ATTACKS:
        attack.make(root / attack.name)
    result = subprocess.run(
        [sys.executable, "-c", _RUN, str(root), str(MEMORY_BYTES)],
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # each thread's reserves address space
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_what_is_healthy_is_read(outcome: dict[str, Any]) -> None:
    assert outcome["results"]["healthy"] == {"problems": [], "restored": "", "files": ["state.json", "state.json"]}


def test_memory_stays_bounded(outcome: dict[str, Any]) -> None:
    assert outcome["growth"] < GROWTH_BYTES


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_refused(attack: Any, outcome: dict[str, Any]) -> None:
    found = outcome["results"][attack.name]
    assert "crash" not in found, found
    assert found["problems"]
    text = "\n".join(found["problems"])
    assert attack.words in text
    assert any(name in text for name in ("manifest.json", "rank-00000"))
    assert "MemoryError" not in text
    # What cannot be verified is not handed out either, and leaves no half folder that looks whole.
    assert len(found["files"]) < 2 or "shard" in text or "manifest" in text
    assert all(len(problem) < 2000 for problem in found["problems"])


def test_names_of_tensors_are_never_names_of_files(tmp_path: Path) -> None:
    import numpy as np
    from generation_builder import Builder, Tensor

    names = [
        "model/../../../../../tmp/x",
        "model//etc/passwd",
        "model/a\0b",
        "model/..",
        "model/\n",
        "model/" + "x" * 4000,
    ]
    store = FileStore(tmp_path / "store")
    tensors = [Tensor(name, np.full(4, number, dtype=np.float32)) for number, name in enumerate(names)]
    generation = Builder(store).generation(1, [tensors])
    write_folder(GenerationReader(Catalog(store), generation), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts) == [
        "state.json",
        "tensors.bin",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "000000000002-r000001/../../x",
        "..",
        "0000000000002-r000001",
        "000000000002-r00001",
        "999999999999-r9999999",
        "a b",
    ],
)
def test_folders_with_strange_names_are_not_generations(tmp_path: Path, name: str) -> None:
    healthy(tmp_path / "store")
    strange = tmp_path / "store" / "generations" / name.replace("/", "_")
    if not strange.exists():
        strange.mkdir(parents=True)
        (strange / "manifest.json").write_text("{}")
    found = [files.generation for files in Catalog(FileStore(tmp_path / "store")).generations()]
    assert found == [Generation(1, 1), Generation(2, 1)]


def test_links_out_of_the_storage_are_not_followed_by_a_listing(tmp_path: Path) -> None:
    healthy(tmp_path / "store")
    (tmp_path / "store" / "generations" / "000000000009-r000001").symlink_to(tmp_path)
    assert [files.generation.step for files in Catalog(FileStore(tmp_path / "store")).generations()] == [1, 2]


def test_errors_are_of_this_package() -> None:
    assert issubclass(CheckpointError, RuntimeError)
