"""Where compiled kernels are kept, and when those that an image brought are used."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from sternpost_checkpoint.codec.kernels import jit

FLAGS = "flags\t\t: fpu avx2 bmi1 bmi2 f16c fma abm movbe\n"


def test_where_nothing_may_be_written_kernels_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    for name in (jit.CACHE_VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert jit.cache_folder() is None


def test_a_folder_that_others_may_write_to_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(jit.CACHE_VARIABLE, str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert jit.cache_folder() == tmp_path / "own" / "sternpost" / "kernels"


@pytest.mark.parametrize(
    ("cpuinfo", "runs"),
    [(FLAGS, True), (FLAGS.replace(" avx2", ""), False), ("Features\t: fp asimd\n", False), ("", False)],
)
def test_built_kernels_need_their_processor(cpuinfo: str, runs: bool) -> None:
    assert jit.runs_built_kernels(cpuinfo) is runs


def test_built_kernels_are_copied_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "built" / "mask").mkdir(parents=True)
    (tmp_path / "built" / "mask" / "a.nbi").write_text("built")
    (tmp_path / "built" / "mask" / "b.nbc").write_text("built")
    (tmp_path / "cache" / "mask").mkdir(parents=True)
    (tmp_path / "cache" / "mask" / "a.nbi").write_text("compiled here")
    jit.take_built(tmp_path / "built", tmp_path / "cache")
    assert (tmp_path / "cache" / "mask" / "a.nbi").read_text() == "compiled here"
    assert (tmp_path / "cache" / "mask" / "b.nbc").read_text() == "built"
