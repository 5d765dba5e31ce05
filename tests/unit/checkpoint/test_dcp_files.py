"""Checkpoints of torch.distributed.checkpoint in and out; what is in them is never run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from typer.testing import CliRunner

from sternpost_checkpoint import cli
from sternpost_checkpoint.dcp import SternpostReader, SternpostWriter, archive, unpickler
from sternpost_checkpoint.errors import FormatError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def state() -> dict[str, Any]:
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "model": {
            "plain": base,
            "transposed": base.t(),
            "slice": base[1:3, ::2],
            "half": base.bfloat16(),
            "eight": base.to(torch.float8_e5m2),
            "sixteen": torch.arange(5).to(torch.uint16),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "scalar": torch.tensor(2.5),
            "empty": torch.empty(0, 3),
            "bool": torch.tensor([True, False]),
        },
        "optim": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
        "epoch": 3,
        "name": "ä",
        "none": None,
        "huge": 2**70,
        "inf": float("inf"),
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "ordered": collections.OrderedDict(a=1),
        "pair": (1, torch.tensor([7, 8])),
    }


def loaded(uri: str) -> dict[str, Any]:
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    return _load_state_dict_from_keys(storage_reader=SternpostReader(uri))


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (
            one.contiguous().reshape(-1).view(torch.uint8).tolist()
            == other.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    elif isinstance(one, dict):
        assert {str(key) for key in one} == {str(key) for key in other}
        for key, value in one.items():
            assert_same(value, other[key] if key in other else other[str(key)])
    elif isinstance(one, list | tuple):
        for item, kept in zip(one, other, strict=True):
            assert_same(item, kept)
    else:
        assert one == other


def test_import_what_torch_wrote(tmp_path: Path) -> None:
    dcp.save(state(), checkpoint_id=tmp_path / "dcp")
    uri = (tmp_path / "store").as_uri()
    result = run("import", uri, tmp_path / "dcp", "-f", "dcp", "--step", "12", "--json")
    assert result.exit_code == 0, repr(result.exception)
    assert "000000000012-r000001" in result.output
    assert run("verify", uri).exit_code == 0
    assert_same(state(), loaded(uri))


def test_import_needs_no_torch(tmp_path: Path) -> None:
    dcp.save(state(), checkpoint_id=tmp_path / "dcp")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv[1:] = ['import', *sys.argv[1:], '-f', 'dcp']\n"
        "from sternpost_checkpoint.cli import main; main()"
    )
    store = (tmp_path / "store").as_uri()
    result = subprocess.run(
        [sys.executable, "-c", code, store, str(tmp_path / "dcp")], capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()


def test_export_for_torch(tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()
    dcp.save(state(), storage_writer=SternpostWriter(uri, step=4))
    result = run("export", uri, tmp_path / "out", "-f", "dcp", "--json")
    assert result.exit_code == 0, repr(result.exception)
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    assert_same(state(), _load_state_dict_from_keys(checkpoint_id=tmp_path / "out"))
    # And back, into the same generation but for its name.
    assert run("import", uri, tmp_path / "out", "-f", "dcp").exit_code == 0
    assert "changed" not in run("diff", uri, "4", "5").output.replace("of 0 changed", "")


def test_import_of_several_ranks(tmp_path: Path) -> None:
    """A tensor in blocks, as ranks of FSDP write it; here with a file for each tensor."""
    dcp.save(state(), storage_writer=dcp.FileSystemWriter(tmp_path / "dcp", single_file_per_rank=False))
    uri = (tmp_path / "store").as_uri()
    assert run("import", uri, tmp_path / "dcp", "-f", "dcp").exit_code == 0
    assert_same(state(), loaded(uri))


class Runs:
    """A pickle that runs something when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def hostile_pickles(path: Path) -> dict[str, bytes]:
    name = str(path).encode()
    text = lambda value: b"X" + struct.pack("<I", len(value)) + value  # noqa: E731
    return {
        "reduce": pickle.dumps(Runs(path)),
        "protocol 0": pickle.dumps(Runs(path), protocol=0),
        "os.system": b"cos\nsystem\n(S'mkdir " + name + b"'\ntR.",
        "builtins.eval": b"c__builtin__\neval\n(S'1'\ntR.",
        "getattr": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        "stack global by memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93" + text(b"mkdir " + name) + b"\x85R.",
        "through an allowed module": b"ctorch\nload\n(S'x'\ntR.",
        "dotted": b"\x80\x04" + text(b"torch.distributed.checkpoint.metadata") + text(b"Metadata.__init__") + b"\x93.",
        "dotted to os": b"\x80\x04" + text(b"pathlib") + text(b"os.system") + b"\x93.",
        "instance": b"(S'x'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'x'\no.",
        "extension": b"\x80\x02\x82\x01.",
        "build on a class": b"\x80\x02ctorch.distributed.checkpoint.metadata\nMetadata\n}b.",
        "build on a function": b"\x80\x02ccollections\nOrderedDict\n}" + text(b"_do") + b"K\x01sb.",
        "build with slots": b"\x80\x02ctorch\nSize\nN}" + text(b"__call__") + b"K\x01s\x86b.",
        "far memo": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
        "far memo in text": b"I1\np2147483647\n.",
        "long string": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".",
        "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
        "long long": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b".",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"K\x01.",
        "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",
        "buffer": b"\x80\x05\x97.",
        "digits": b"L" + b"9" * 100_000 + b"L\n.",
        "nothing": b"",
        "cut": pickle.dumps({"a": [1, 2, 3]})[:-2],
        "empty stack": b"\x80\x02.",
        "self": b"\x80\x02]q\x00h\x00a.",
        "text": b"hello",
        "not metadata": pickle.dumps({"state_dict_metadata": {}}),
        "deep": b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
        "laughs": b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n, n - 1, n - 1) for n in range(1, 60)) + b".",
        "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    }


@pytest.mark.parametrize("kind", hostile_pickles(Path("x")))
def test_hostile_metadata(kind: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    folder = tmp_path / "dcp"
    folder.mkdir()
    (folder / ".metadata").write_bytes(hostile_pickles(trap)[kind])
    result = run("import", (tmp_path / "s").as_uri(), folder, "-f", "dcp")
    assert not trap.exists()
    assert type(result.exception).__name__ in ("FormatError", "CheckpointError"), repr(result.exception)
    assert ".metadata" in str(result.exception)


def read_or_refuse(data: bytes) -> Any:
    """What an archive holds, or the words with which it is refused."""
    try:
        return archive.read(memoryview(data), "x")
    except FormatError as error:
        return str(error)


@pytest.mark.parametrize("kind", hostile_pickles(Path("x")))
def test_hostile_tensors(kind: str, tmp_path: Path) -> None:
    """The same inside of an archive of torch.save."""
    trap = tmp_path / "trap"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("archive/data.pkl", hostile_pickles(trap)[kind])
    found = read_or_refuse(buffer.getvalue())
    assert isinstance(found, str) or kind == "not metadata"
    assert not trap.exists()


def test_hostile_pickles_take_no_memory(tmp_path: Path) -> None:
    """All of them, in a process that may have little."""
    folder = tmp_path / "pickles"
    folder.mkdir()
    for number, data in enumerate(hostile_pickles(tmp_path / "trap").values()):
        (folder / str(number)).write_bytes(data)
    code = (
        "import resource, sys, pathlib\n"
        "from sternpost_checkpoint.dcp import unpickler\n"
        "from sternpost_checkpoint.errors import FormatError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: unpickler.load(path.read_bytes(), 'x')\n"
        "    except FormatError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 128 * 1024  # KiB


def saved(folder: Path, change: Any) -> None:
    """A checkpoint of torch whose metadata were changed."""
    dcp.save({"model": {"w": torch.arange(6.0).reshape(2, 3)}, "n": 1}, checkpoint_id=folder)
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 # this test has written it
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def place(metadata: Any, **changes: Any) -> None:
    for info in metadata.storage_data.values():
        for name, value in changes.items():
            setattr(info, name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: place(m, relative_path="../../etc/passwd"), "no file beside it"),
        (lambda m: place(m, relative_path="/etc/passwd"), "no file beside it"),
        (lambda m: place(m, relative_path=".metadata"), "no file beside it"),
        (lambda m: place(m, relative_path="gone.distcp"), "cannot read"),
        (lambda m: place(m, offset=2**60), "cut or torn"),
        (lambda m: place(m, offset=-1), "cut or torn"),
        (lambda m: place(m, length=2**60), "cut or torn"),
        (lambda m: place(m, length=10), "torch.save"),
        (lambda m: place(m, transform_descriptors=["zstd"]), "extension"),
        (lambda m: m.storage_data.clear(), "does not say where"),
        (lambda m: setattr(m, "storage_data", None), "malformed"),
        (lambda m: setattr(m.state_dict_metadata["model.w"], "size", torch.Size([2**40, 2**40])), "over the limit"),
        (lambda m: setattr(m.state_dict_metadata["model.w"], "size", torch.Size([2**20, 3])), "do not make up"),
        (
            lambda m: setattr(m.state_dict_metadata["model.w"], "chunks", m.state_dict_metadata["model.w"].chunks * 2),
            "do not",
        ),
        (lambda m: setattr(m.state_dict_metadata["model.w"].chunks[0], "offsets", (-1, 0)), "malformed"),
        (lambda m: setattr(m.state_dict_metadata["model.w"].properties, "dtype", torch.int64), "not the int64"),
        (lambda m: setattr(m.state_dict_metadata["model.w"].properties, "dtype", torch.float16), "not the float16"),
        (lambda m: m.planner_data.update({"model.w": ("model", 2**40)}), "malformed"),
        (lambda m: m.planner_data.update({"model.w": ("n", "w")}), "cross"),
        (lambda m: m.planner_data.update({"model.w": ()}), "malformed"),
    ],
)
def test_metadata_that_lie(tmp_path: Path, change: Any, words: str) -> None:
    saved(tmp_path / "dcp", change)
    result = run("import", (tmp_path / "s").as_uri(), tmp_path / "dcp", "-f", "dcp")
    assert words in str(result.exception)
    assert type(result.exception).__name__ in ("FormatError", "CheckpointError"), repr(result.exception)


def test_every_truncation_and_many_flips(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(6.0).reshape(2, 3).t(), "n": [1, "a"]}, buffer)
    good = buffer.getvalue()
    assert archive.read(memoryview(good), "x")["n"] == [1, "a"]
    random = np.random.default_rng(1)
    tries = [good[:end] for end in range(0, len(good), 7)]
    for _ in range(2000):
        flipped = bytearray(good)
        flipped[random.integers(len(good))] ^= 1 << int(random.integers(8))
        tries.append(bytes(flipped))
    for data in tries:
        found = read_or_refuse(data)
        assert not isinstance(found, str) or found.startswith("x")


def test_a_packed_entry_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(FormatError, match="packed or encrypted"):
        archive.read(memoryview(buffer.getvalue()), "x")


def test_plain_pickles_of_what_torch_writes_are_read() -> None:
    value = {"a": (1, 2.5, None, True, b"x", "ä"), "b": [torch.Size([3])], "c": torch.float16}
    found = unpickler.load(pickle.dumps(value), "x")
    assert found["a"] == value["a"]
    assert found["b"] == [(3,)]
    assert found["c"].dtype == "float16"
