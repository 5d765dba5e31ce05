"""Encoding a state: what is chosen of real codecs, moments within their bound, and speeds that are learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_state import State, meta_of, state_at, write_state

from sternpost_checkpoint.adaptive.policy import CodecPolicy, Exactness, Preference
from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.format.documents import StoredTensor
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.reader import GenerationReader
from sternpost_checkpoint.shm.slot import Slot
from sternpost_checkpoint.sidecar.commit import try_commit
from sternpost_checkpoint.sidecar.encode import BATCH_BYTES
from sternpost_checkpoint.sidecar.plan import grouped
from sternpost_checkpoint.sidecar.samples import changed_share, entropy_bits, sample_of
from sternpost_checkpoint.sidecar.trials import OBSERVED_BYTES, PRIOR_SPEEDS, Speeds, warm_up
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation


def saved(
    helpers: Any, folder: Path, policy: CodecPolicy, state: State, encoder: Any = None
) -> dict[str, StoredTensor]:
    """One save, committed and verified; name to entry."""
    store = FileStore(folder / "store")
    step = len(Catalog(store).generations()) + 1
    header = write_state(folder / "slot-0", state, step=step)
    helpers.persist(store, Slot.open(folder / "slot-0"), header, encoder=encoder or helpers.rank_encoder(policy))
    try_commit(Catalog(store), Generation(step, 1), 1, 3, lambda: None)
    assert verify_generation(Catalog(store), Generation(step, 1)) == []
    manifest = Catalog(store).manifest(Generation(step, 1))
    index = Catalog(store).index(manifest, manifest.ranks[0])
    return {index.spec(entry.tensor).name: entry for entry in index.stored}


def decoded(folder: Path, step: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    reader = GenerationReader(Catalog(FileStore(folder / "store")), Generation(step, 1))
    assert reader.tensors(lambda _, spec, raw: found.__setitem__(spec.name, bytes(raw))) == []
    return found


BIG = 2**17


def test_a_master_is_stored_as_what_its_weight_lacks(helpers: Any, tmp_path: Path) -> None:
    state = state_at(1, elements=BIG)
    found = saved(helpers, tmp_path, CodecPolicy(prefer=Preference.SIZE), state)
    master = found["optimizer/0/master"]
    assert master.codec == "low-bits"
    assert master.companion == list(state).index("model/0.weight")
    assert master.stored_bytes < 0.52 * 4 * BIG
    assert decoded(tmp_path, 1) == {name: values.tobytes() for name, (_, values) in state.items()}


@pytest.mark.parametrize(("exactness", "bound"), [(Exactness.ADAPTIVE, 0.02), (Exactness.COMPACT, 0.5)])
def test_moments_stay_within_their_bound(helpers: Any, tmp_path: Path, exactness: Exactness, bound: float) -> None:
    state = state_at(3, elements=BIG)
    policy = CodecPolicy.of(exactness, Preference.BALANCED)
    found = saved(helpers, tmp_path, policy, state)
    back = decoded(tmp_path, 1)
    for name, (dtype, values) in state.items():
        if "exp_avg" not in name:
            assert back[name] == values.tobytes(), name
            continue
        entry = found[name]
        assert dtype == "float32"
        assert entry.codec.startswith("clusters-")
        assert entry.stored_bytes < 0.35 * 4 * BIG
        assert entry.update_error is not None
        assert entry.update_error <= bound
        assert "update error" in entry.reason
    for number in range(2):
        m, v = (np.frombuffer(back[f"optimizer/{number}/{name}"], np.float32) for name in ("exp_avg", "exp_avg_sq"))
        first, second = (state[f"optimizer/{number}/{name}"][1] for name in ("exp_avg", "exp_avg_sq"))
        update, before = m / (np.sqrt(v) + 1e-8), first / (np.sqrt(second) + 1e-8)
        error = np.linalg.norm(update - before) / np.linalg.norm(before)
        assert error <= bound * 1.001
        assert error == pytest.approx(found[f"optimizer/{number}/exp_avg"].update_error, rel=0.01)
        assert ((v == 0) == (second == 0)).all()


def test_a_bound_that_cannot_be_kept_means_bit_for_bit(helpers: Any, tmp_path: Path) -> None:
    state = state_at(3, elements=BIG)
    found = saved(helpers, tmp_path, CodecPolicy.of(Exactness.COMPACT, Preference.BALANCED, 1e-6), state)
    assert decoded(tmp_path, 1) == {name: values.tobytes() for name, (_, values) in state.items()}
    entry = found["optimizer/0/exp_avg"]
    assert entry.update_error is None
    assert "clusters-8: the update's error is above" in entry.reason


def test_frozen_weights_cost_nothing(helpers: Any, tmp_path: Path) -> None:
    encoder = helpers.rank_encoder(CodecPolicy(prefer=Preference.SIZE))
    state = state_at(1, elements=BIG)
    for _ in range(2):
        found = saved(helpers, tmp_path, CodecPolicy(), state, encoder)
    weight = found["model/0.weight"]
    assert weight.delta
    assert weight.stored_bytes < 2 * BIG / 100
    assert "p=0," in weight.reason


def test_noise_is_stored_as_it_is(helpers: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 2**32, BIG, dtype=np.uint32).view(np.float32)
    found = saved(helpers, tmp_path, CodecPolicy(prefer=Preference.SIZE), {"model/noise": ("float32", noise)})
    assert found["model/noise"].codec == "raw"
    assert "nothing gains" in found["model/noise"].reason
    assert decoded(tmp_path, 1)["model/noise"] == noise.tobytes()


def test_every_dtype_and_shape_passes(helpers: Any, tmp_path: Path) -> None:
    state: State = {
        "model/scalar": ("float32", np.array(1.5, dtype=np.float32)),
        "model/empty": ("bfloat16", np.zeros((0, 3), dtype=np.uint16)),
        "model/bool": ("bool", np.ones(5000, dtype=np.bool_)),
        "model/complex": ("complex128", np.arange(3000, dtype=np.complex128)),
        "model/int": ("int64", np.arange(3000, dtype=np.int64)),
        "model/half": ("float16", np.arange(3000, dtype=np.float16)),
        "model/double": ("float64", np.random.default_rng(1).standard_normal((30, 100))),
        "extra/step": ("int32", np.array([7], dtype=np.int32)),
    }
    encoder = helpers.rank_encoder(CodecPolicy(prefer=Preference.SIZE))
    for step in (1, 2):
        saved(helpers, tmp_path, CodecPolicy(), state, encoder)
        assert decoded(tmp_path, step) == {name: values.tobytes() for name, (_, values) in state.items()}


def test_what_codecs_did_is_told(helpers: Any, tmp_path: Path) -> None:
    state = state_at(1, elements=BIG)
    found = saved(helpers, tmp_path, CodecPolicy(), state)
    assert all(entry.reason and len(entry.reason) <= 200 for entry in found.values())
    assert json.loads(next(iter(found.values())).to_bytes())["reason"]


class TestSamples:
    @given(st.integers(0, 2**26), st.sampled_from(["bfloat16", "float32", "complex128", "uint8"]), st.booleans())
    def test_they_lie_within_the_tensor(self, size: int, dtype: str, thorough: bool) -> None:
        width = {"bfloat16": 2, "float32": 4, "complex128": 16, "uint8": 1}[dtype]
        sample = sample_of(size // width * width, dtype, thorough=thorough)
        assert sample.is_whole or all(0 <= start <= sample.elements - sample.run for start in sample.starts)

    def test_the_same_elements_of_both(self) -> None:
        values = np.arange(2**20, dtype=np.uint32)
        sample = sample_of(values.nbytes, "float32", thorough=False)
        assert not sample.is_whole
        wide = np.frombuffer(sample.of(memoryview(values.data).cast("B"), "float32"), np.uint32)
        narrow = np.frombuffer(
            sample.of(memoryview((values % 2**16).astype(np.uint16).data).cast("B"), "bfloat16"), np.uint16
        )
        assert (wide % 2**16 == narrow).all()

    @given(st.binary(max_size=320), st.sampled_from(["uint8", "bfloat16", "float32", "float64", "complex128"]))
    def test_changed_share(self, data: bytes, dtype: str) -> None:
        width = {"uint8": 1, "bfloat16": 2, "float32": 4, "float64": 8, "complex128": 16}[dtype]
        raw = data[: len(data) // width * width]
        base = bytes(len(raw))
        changed = sum(raw[at : at + width] != base[at : at + width] for at in range(0, len(raw), width))
        expected = changed / (len(raw) // width) if raw else 0.0
        assert changed_share(memoryview(raw), memoryview(base), dtype) == pytest.approx(expected)

    def test_entropy(self) -> None:
        assert entropy_bits(memoryview(bytes(1000)), "uint8") == 0
        assert entropy_bits(memoryview(bytes(range(256)) * 4), "uint8") == pytest.approx(8)
        assert entropy_bits(memoryview(b"\0\1" * 500), "bfloat16") == 0


class TestSpeeds:
    def test_a_busy_machine_is_busy_for_all(self) -> None:
        speeds = Speeds()
        for _ in range(30):
            speeds.observe("float-ans", "bfloat16", None, 2**22, 2**22 / (PRIOR_SPEEDS["float-ans"] / 10))
        for codec, prior in PRIOR_SPEEDS.items():
            assert speeds.of(codec, "bfloat16", None) == pytest.approx(prior / 10, rel=0.2)

    def test_a_codec_that_is_better_than_its_prior_is_found_out(self) -> None:
        speeds = Speeds()
        for _ in range(40):
            for codec, factor in (("mask", 1.0), ("xor-planes", 2.0), ("float-ans", 1.0)):
                speeds.observe(codec, "bfloat16", 0.1, 2**22, 2**22 / (PRIOR_SPEEDS[codec] * factor))
        relation = speeds.of("xor-planes", "bfloat16", 0.1) / speeds.of("mask", "bfloat16", 0.1)
        assert relation == pytest.approx(2 * PRIOR_SPEEDS["xor-planes"] / PRIOR_SPEEDS["mask"], rel=0.35)

    def test_small_tensors_teach_nothing(self) -> None:
        speeds = Speeds()
        before = speeds.of("mask", "bfloat16", None)
        speeds.observe("mask", "bfloat16", None, OBSERVED_BYTES - 1, 100.0)
        assert speeds.of("mask", "bfloat16", None) == before


def test_codecs_are_tried_again_when_things_change(helpers: Any) -> None:
    tried: list[str] = []

    encoder = helpers.rank_encoder(CodecPolicy())
    book = encoder._book
    states = [state_at(step, elements=BIG) for step in range(1, 4)]
    for number, state in enumerate(states):
        meta = meta_of(state)
        payload = bytearray(meta.payload_bytes)
        for spec, (_, values) in zip(meta.tensors, state.values(), strict=True):
            payload[spec.offset : spec.offset + spec.bytes] = values.tobytes()
        encoding = encoder.begin(meta.tensors, memoryview(payload), Generation(number + 1, 1), on_line=True)
        for _ in encoding.pieces():
            pass
        encoder.stored(encoding, Generation(number + 1, 1), 1.0, float(number))
        encoder.assume_committed(encoding)
        tried.append(str(book._memos["model/0.weight"].age))
    # Without a base; with one; the same change again, which is remembered.
    assert tried == ["1", "1", "2"]


def test_small_tensors_are_handed_over_together() -> None:
    class Unit:
        def __init__(self, size: int) -> None:
            self.inputs = self
            self.spec = self
            self.bytes = size

    sizes = [10, 20, BATCH_BYTES, 30, 5 * BATCH_BYTES, 1, 2]
    groups = grouped([(Unit(size),) for size in sizes], BATCH_BYTES)  # type: ignore[arg-type, misc]
    assert [[unit[0].bytes for unit in group] for group in groups] == [
        [10, 20],
        [BATCH_BYTES],
        [30],
        [5 * BATCH_BYTES],
        [1, 2],
    ]


def test_warming_up_uses_every_codec() -> None:
    warm_up()
