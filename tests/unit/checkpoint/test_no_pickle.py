"""Nothing of the checkpoint engine unpickles, evaluates or unzips, but the one file that reads torch's metadata, guarded."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sternpost_checkpoint

ROOT = Path(sternpost_checkpoint.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "pickletools",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "zipfile",
    "zipimport",
    "runpy",
}
CALLS = {"eval", "exec", "compile", "__import__"}
ALLOWED = {"dcp/unpickler.py": {"pickle", "pickletools"}}
TORCH_LOADS = {"torch.load", "torch.save", "torch.jit.load", "np.load", "numpy.load"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_pickle_no_eval_no_zip(path: Path) -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found |= {name} & (CALLS | TORCH_LOADS)
            if any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                found.add(name)
    assert found == ALLOWED.get(path.relative_to(ROOT).as_posix(), set())


def test_the_unpickler_is_reached_only_from_the_import() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and ("unpickler" in (node.module or "") or any(alias.name == "unpickler" for alias in node.names))
    }
    assert users == {"dcp/archive.py", "dcp/torch_import.py"}
