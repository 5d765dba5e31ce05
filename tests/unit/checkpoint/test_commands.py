"""Every command, on storages with blocks, ranks, chains and damage; and that each is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generation_builder import Builder, Tensor
from typer.testing import CliRunner

from sternpost_checkpoint import cli
from sternpost_checkpoint.store.file import FileStore

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = [command.name for command in cli.app.registered_commands]
RANDOM = np.random.default_rng(3)


def bf16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


WHOLE = RANDOM.standard_normal((6, 4)).astype(np.float32)
BIAS = bf16(RANDOM.standard_normal(8))
MOMENT = RANDOM.standard_normal((3, 4)).astype(np.float32)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Two ranks; a matrix cut into two blocks, a bias that all share, a moment of each rank's own. Step 2 moves the bias."""
    store = FileStore(tmp_path / "store")
    builder = Builder(store)
    for step, bias in ((1, BIAS), (2, np.where(np.arange(8) < 2, BIAS ^ 1, BIAS).astype(np.uint16))):
        builder.generation(
            step,
            [
                [
                    Tensor("model/w", WHOLE[:4], codec="zstd-planes", start=(0, 0), whole=(6, 4)),
                    Tensor("model/b", bias, replicated=True),
                    Tensor("optimizer/m", MOMENT),
                ],
                [
                    Tensor("model/w", WHOLE[4:], start=(4, 0), whole=(6, 4)),
                    Tensor("model/b", bias, replicated=True, stored=False),
                    Tensor("optimizer/m", MOMENT + 1),
                ],
            ],
            trees=[{"model": {"w": {"$": "tensor", "index": 0}}, "extra": {"epoch": 7}}] * 2,
        )
    return tmp_path / "store"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_restore_into_a_folder(storage: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert answer("restore", storage.as_uri(), target, "-g", "1")["generation"] == "000000000001-r000001"
    assert sorted(path.name for path in target.iterdir()) == ["state.json", "tensors.bin"]
    state = json.loads((target / "state.json").read_text())
    data = (target / "tensors.bin").read_bytes()
    found = {
        (tensor["name"], tensor["rank"]): data[tensor["offset"] : tensor["offset"] + tensor["bytes"]]
        for tensor in state["tensors"]
    }
    assert found == {
        ("model/w", None): WHOLE.tobytes(),
        ("model/b", None): BIAS.tobytes(),
        ("optimizer/m", 0): MOMENT.tobytes(),
        ("optimizer/m", 1): (MOMENT + 1).tobytes(),
    }
    assert state["trees"]["1"]["extra"] == {"epoch": 7}
    place = state["tables"]["1"][state["trees"]["1"]["model"]["w"]["index"]]
    assert state["tensors"][place]["name"] == "model/w"
    result = run("restore", storage.as_uri(), target)
    assert "is not empty" in repr(result.exception)


def test_restore_one_tensor(storage: Path, tmp_path: Path) -> None:
    answer("restore", storage.as_uri(), tmp_path / "w.npy", "-t", "w")
    assert np.array_equal(np.load(tmp_path / "w.npy"), WHOLE)
    answer("restore", storage.as_uri(), tmp_path / "m.bin", "-t", "optimizer/m@rank-1")
    assert (tmp_path / "m.bin").read_bytes() == (MOMENT + 1).tobytes()
    assert "numpy does not have" in repr(run("restore", storage.as_uri(), tmp_path / "b.npy", "-t", "b").exception)
    assert "is not one tensor but 2" in repr(run("restore", storage.as_uri(), tmp_path / "x.bin", "-t", "m").exception)
    assert "no tensor 'nope'" in repr(run("restore", storage.as_uri(), tmp_path / "x.bin", "-t", "nope").exception)
    assert "none of .npy" in repr(run("restore", storage.as_uri(), tmp_path / "x.txt", "-t", "w").exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "store", "w.npy"]


def test_diff(storage: Path) -> None:
    rows = {row["tensor"]: row for row in answer("diff", storage.as_uri(), "1", "2")["tensors"]}
    assert rows["model/w"]["status"] == "the same"
    assert rows["model/b"]["status"] == "changed"
    assert (rows["model/b"]["elements"], rows["model/b"]["changed"]) == (8, 2)
    before = (BIAS.astype(np.uint32) << 16).view(np.float32).astype(float)
    after = ((BIAS ^ (np.arange(8) < 2)).astype(np.uint32) << 16).view(np.float32).astype(float)
    assert rows["model/b"]["relative"] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert rows["model/b"]["largest"] == pytest.approx(np.abs(after - before).max())
    text = run("diff", storage.as_uri(), "1", "2", "--role", "model").output
    assert "25.00% of 8 changed" in text
    assert "optimizer" not in text


def test_show_says_why(storage: Path) -> None:
    text = run("show", storage.as_uri(), "--tensors").output
    assert "model/w  float32 4x4 @[0, 0] of [6, 4]  zstd-planes" in text


def test_export_and_import_safetensors(storage: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    torch_files = pytest.importorskip("safetensors.torch")
    answer("export", storage.as_uri(), tmp_path / "out", "-f", "safetensors", "-g", "1")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert sorted(file.keys()) == ["b", "w"]
        assert file.get_slice("b").get_dtype() == "BF16"
        assert np.array_equal(file.get_tensor("w"), WHOLE)
    loaded = torch_files.load_file(tmp_path / "out" / "model.safetensors")
    assert loaded["b"].view(__import__("torch").uint16).numpy().tobytes() == BIAS.tobytes()
    # By several files with an index, and back.
    out = answer("export", storage.as_uri(), tmp_path / "many", "-f", "safetensors", "--max-size", "40")
    assert [Path(name).name for name in out["files"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == 112
    other = (tmp_path / "other").as_uri()
    imported = answer("import", other, tmp_path / "many", "-f", "safetensors", "--step", "40")
    assert imported["generation"] == "000000000040-r000001"
    assert answer("verify", other)["generations"][0]["ok"]
    assert answer("import", other, tmp_path / "out", "-f", "safetensors")["generation"] == "000000000041-r000002"
    rows = {row["tensor"]: row["status"] for row in answer("diff", other, "40", "41")["tensors"]}
    assert rows == {"model/b": "changed", "model/w": "the same"}
    refused = run("import", other, tmp_path / "out", "-f", "safetensors", "--step", "3")
    assert "is not behind 000000000041" in repr(refused.exception)


def test_export_of_everything(storage: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    answer("export", storage.as_uri(), tmp_path / "out", "-f", "safetensors", "--role", "all")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert sorted(file.keys()) == ["model/b", "model/w", "optimizer/m@rank-0", "optimizer/m@rank-1"]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "complex64", "int64", "bool"])
def test_numbers_and_files_of_every_kind(dtype: str, tmp_path: Path) -> None:
    """What torch writes into safetensors comes out of a generation as torch's numbers."""
    torch = pytest.importorskip("torch")
    torch_files = pytest.importorskip("safetensors.torch")
    from sternpost_checkpoint.transfer.numbers import numbers

    words = torch.arange(256, dtype=torch.uint8)
    if dtype == "bool":
        words = words % 2
    value = words.view(getattr(torch, dtype)).reshape(4, -1)
    torch_files.save_file({"x": value}, tmp_path / "in.safetensors")
    store = (tmp_path / "store").as_uri()
    answer("import", store, tmp_path / "in.safetensors", "-f", "safetensors")
    answer("restore", store, tmp_path / "x.bin", "-t", "x")
    assert (tmp_path / "x.bin").read_bytes() == words.numpy().tobytes()
    answer("export", store, tmp_path / "out", "-f", "safetensors")
    assert torch.equal(
        torch_files.load_file(tmp_path / "out" / "model.safetensors")["x"].view(torch.uint8), value.view(torch.uint8)
    )
    if value.is_floating_point():
        assert np.array_equal(
            numbers(memoryview(words.numpy()), dtype), value.float().flatten().numpy(), equal_nan=True
        )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot read"),
        (b"12345678", "does not fit"),
        (b"\xff" * 8 + b"{}", "does not fit"),
        (b"\x02" + bytes(7) + b"[]", "not an object"),
        (b"\x04" + bytes(7) + b"{{{{", "not JSON"),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    result = run("import", (tmp_path / "s").as_uri(), tmp_path / "x.safetensors", "-f", "safetensors")
    assert words in repr(result.exception)


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [4, 0]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": [4, 8]},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"shape": [True]},
        {"dtype": "PICKLE"},
        {"dtype": ["F32"]},
        {"shape": [1] * 65},
    ],
)
def test_hostile_safetensors(tmp_path: Path, change: dict[str, Any]) -> None:
    head = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **change}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    result = run("import", (tmp_path / "s").as_uri(), tmp_path / "x.safetensors", "-f", "safetensors")
    assert "x.safetensors" in str(result.exception)
    assert type(result.exception).__name__ == "FormatError"


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", 7])
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    result = run("import", (tmp_path / "s").as_uri(), tmp_path / "in", "-f", "safetensors")
    assert type(result.exception).__name__ == "FormatError"


def test_gc(storage: Path) -> None:
    assert answer("gc", storage.as_uri(), "--keep", "1", "--dry-run")["wouldRemove"] == ["000000000001-r000001"]
    assert len(answer("ls", storage.as_uri())["generations"]) == 2
    removed = answer("gc", storage.as_uri(), "--keep", "1")
    assert removed["removed"] == ["000000000001-r000001"]
    assert removed["bytes"] > 0
    assert [row["step"] for row in answer("ls", storage.as_uri())["generations"]] == [2]


def test_bench(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    result = answer("bench", "--size", "1M", "--storage", store)
    assert {row["codec"] for row in result["codecs"]} >= {
        "raw",
        "zstd-planes",
        "mask",
        "diff-ans",
        "float-ans",
        "low-bits",
    }
    assert all(row["ratio"] is None or row["ratio"] > 0 for row in result["codecs"])
    assert [row["what"] for row in result["storage"]] == ["write, durable", "read", "create if absent"]
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert "MB/s" in run("bench", "--size", "64K").output
    assert "is no size" in repr(run("bench", "--size", "many").exception)


def test_commands_load_no_torch_unless_they_must() -> None:
    code = "import sys; from sternpost_checkpoint import cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_error_says_what_to_install(storage: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "sys.argv[1:] = ['export', *sys.argv[1:], '--format', 'dcp']\n"
        "from sternpost_checkpoint.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, storage.as_uri(), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "torch is not installed: pip install 'sternpost[trainer]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    guide = (ROOT / "docs" / "checkpoints.md").read_text()
    assert f"sternpost-checkpoint {command}" in guide
    help_text = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    options = set(re.findall(r"(--[a-z-]+)", help_text)) - {"--help", "--json", "--generation"}
    assert options <= set(re.findall(r"(--[a-z-]+)", guide)), f"{command} has an option that the guide does not name"


def test_nothing_is_documented_that_is_not_there() -> None:
    guide = (ROOT / "docs" / "checkpoints.md").read_text()
    assert set(re.findall(r"sternpost-checkpoint ([a-z]+)", guide)) <= set(COMMANDS)
