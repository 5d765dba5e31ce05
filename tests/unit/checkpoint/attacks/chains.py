"""Deltas without end, against themselves, against what is not there or is something else; companions likewise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from attacks.storage import BASE, WEIGHT, attack, edit_index, edit_manifest, folder, healthy, tensors
from sternpost_checkpoint.lineage import Generation


def base(root: Path, **changes: Any) -> None:
    healthy(root)
    edit_index(root, lambda index: index["base"].update(changes))


@attack("not older")
def its_own_base(root: Path) -> None:
    base(root, step=2, run=1)


@attack("not older")
def a_base_that_is_newer(root: Path) -> None:
    base(root, step=3, run=1)


@attack("not older")
def a_base_of_a_later_run(root: Path) -> None:
    base(root, step=2, run=2)


@attack("")
def two_that_build_on_each_other(root: Path) -> None:
    healthy(root)

    def change(index: dict[str, Any]) -> None:
        index["base"] = {"step": 2, "run": 1, "shardHash": "0" * 32}
        index["chain"] = 1
        index["stored"][0].update(delta=True, codec="xor-planes")

    edit_index(root, change, BASE)


@attack("a base that the manifest does not name")
def a_base_that_the_manifest_does_not_name(root: Path) -> None:
    base(root, step=0, run=1)


@attack("000000000000-r000001")
def a_base_that_is_not_there(root: Path) -> None:
    base(root, step=0, run=1)
    edit_manifest(root, lambda manifest: manifest.update(bases=[[0, 1]]))


@attack("")
def a_base_that_was_collected(root: Path) -> None:
    healthy(root)
    shutil.rmtree(folder(root, BASE))


@attack("another one")
def a_base_of_other_bytes(root: Path) -> None:
    base(root, shardHash="f" * 32)


@attack("no tensor 'model/w'")
def a_base_without_the_tensor(root: Path) -> None:
    builder = healthy(root)
    shutil.rmtree(folder(root))
    shutil.rmtree(folder(root, BASE))
    builder.generation(1, [tensors(WEIGHT)[1:]])
    builder.generation(2, [tensors(WEIGHT, base=WEIGHT)], parent=BASE)


@attack("another type or shape")
def a_base_of_another_shape(root: Path) -> None:
    builder = healthy(root)
    shutil.rmtree(folder(root))
    shutil.rmtree(folder(root, BASE))
    builder.generation(1, [tensors(WEIGHT.reshape(64, 64))[:1]])
    builder.generation(2, [tensors(WEIGHT, base=WEIGHT)], parent=BASE)


@attack("differ about what it needs")
def a_delta_that_says_it_is_none(root: Path) -> None:
    healthy(root)

    def change(index: dict[str, Any]) -> None:
        index["stored"][0]["delta"] = False
        index.update(base=None, chain=0)

    edit_index(root, change)
    edit_manifest(root, lambda manifest: manifest.update(bases=[], chain=0))


@attack("differ about what it needs")
def a_whole_tensor_that_says_it_is_a_delta(root: Path) -> None:
    healthy(root)
    edit_index(root, lambda index: index["stored"][1].update(delta=True))


@attack("chain")
def a_chain_that_is_too_long(root: Path) -> None:
    healthy(root)
    edit_index(root, lambda index: index.update(chain=65))


@attack("chain")
def a_chain_that_lies_about_its_length(root: Path) -> None:
    """Each says that one generation is behind it; there are six."""
    builder = healthy(root)
    for step in range(3, 8):
        builder.generation(
            step, [tensors(WEIGHT + step, base=WEIGHT + (step - 1 if step > 3 else 0))], parent=Generation(step - 1, 1)
        )
    for step in range(3, 8):
        edit_index(root, lambda index: index.update(chain=1), Generation(step, 1))
    shutil.rmtree(folder(root))
    folder(root, Generation(7, 1)).rename(folder(root))
    path = folder(root) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 2}))


@attack("companion")
def its_own_companion(root: Path) -> None:
    healthy(root)
    edit_index(root, lambda index: index["stored"][1].update(companion=1))


@attack("companion")
def companions_of_each_other(root: Path) -> None:
    healthy(root)

    def change(index: dict[str, Any]) -> None:
        index["stored"][0]["companion"], index["stored"][1]["companion"] = 1, 0

    edit_index(root, change)


@attack("companion")
def a_companion_that_is_not_stored(root: Path) -> None:
    healthy(root)
    edit_index(root, lambda index: index["stored"][1].update(companion=77))


@attack("differ about what it needs")
def a_companion_that_the_codec_does_not_want(root: Path) -> None:
    builder = healthy(root)
    shutil.rmtree(folder(root))
    builder.generation(2, [tensors(np.ones(4096, dtype=np.float32))])
    edit_index(root, lambda index: index["stored"][1].update(companion=0))
