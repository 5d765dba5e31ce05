"""The ring over real TLS on loopback: copies at the next worker, restores from whoever has them, and what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ring_world import JOB_UID, State, Worker, catch_up, expect, held, lose, restore, tell, write_keys

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.table import Shard
from sternpost_checkpoint.lineage import Generation
from sternpost_checkpoint.restore.layout import WantedEntry
from sternpost_checkpoint.ring.client import open_peer
from sternpost_checkpoint.ring.errors import RefusedError, RingError
from sternpost_checkpoint.ring.keys import RingKeys
from sternpost_checkpoint.ring.members import Peer
from sternpost_checkpoint.store.file import FileStore


def test_each_state_is_at_the_next_worker_before_anything_is_stored(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    assert [held(worker) for worker in workers] == [{(2, 1)}, {(0, 1)}, {(1, 1)}]
    assert not Catalog(FileStore(workers[0].storage)).generations()


def test_what_all_ranks_hold_is_not_copied(workers: list[Worker]) -> None:
    workers[0].save(State(1, 0, 3))
    assert workers[1].ring is not None
    part = workers[1].ring._shelf.parts()[0]
    by_name = dict(zip([spec.name for spec in part.description.meta.tensors], part.description.held, strict=True))
    assert by_name == {"model/shared": False, "model/block": True, "random/torch": True}


def test_after_a_node_loss_a_new_worker_has_its_state_from_its_peers(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
        worker.save(State(2, rank, 3))
    new = lose(workers[1])
    tell([workers[0], new, workers[2]], number=2)
    ring = new.start()
    assert ring.offers(1, 3) == [Generation(2, 1), Generation(1, 1)]
    found, tensors = restore(new, 2, 1)
    new.stop()
    assert tensors == expect(State(2, 1, 3))
    assert found.sources == {"peer": sum(map(len, tensors.values()))}
    assert not found.committed, "it is stored in place of the lost worker"
    assert (found.header.attempt_id, found.header.saved_at, found.header.world_size) == ("1-id", 1002.0, 3)


def test_a_replicated_state_is_had_from_any_rank_in_a_world_of_any_size(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3, replicated=True))
    new = lose(workers[2])
    tell([workers[0], workers[1], new], number=2)
    ring = new.start()
    for rank in (2, 5):
        assert ring.offers(rank, 6 if rank == 5 else 3) == [Generation(1, 1)]
        found, tensors = restore(new, 1, rank)
        wanted = expect(State(1, rank, 3, replicated=True))
        if rank == 5:
            del wanted["random/torch"]
        assert tensors == wanted
        assert found.committed == (rank == 5)
    new.stop()


def test_resharding_from_memory(workers: list[Worker]) -> None:
    """Three workers become two: rank 0 wants the first six of twelve rows."""
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    whole = State(1, 0, 3).whole()
    workers[2].stop()  # its part is at worker 0
    tell(workers[:2], number=2)
    for rank, worker in enumerate(workers[:2]):
        assert worker.ring is not None
        assert worker.ring.offers(rank, 2) == [Generation(1, 1)]
        entry = WantedEntry("model/block", "float32", (6, whole.shape[1]), Shard(whole.shape, (6 * rank, 0)))
        found, tensors = restore(worker, 1, rank, wanted=[entry])
        assert tensors["model/block"] == whole[6 * rank : 6 * rank + 6].tobytes()
        assert tensors["model/shared"] == State(1, 0, 3).shared().tobytes()
        assert found.committed, "it is another state than the one that was saved"
        assert set(found.sources) == {"shared-memory", "peer"}
        everything = restore(worker, 1, rank, wanted=[])[1]
        assert everything["model/block"] == whole.tobytes()


def test_an_incomplete_generation_is_not_offered(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    workers[0].save(State(2, 0, 3))
    workers[1].save(State(2, 1, 3), push=False)
    workers[2].save(State(2, 2, 3))
    new = lose(workers[1])
    tell([workers[0], new, workers[2]], number=2)
    ring = new.start()
    assert ring.offers(1, 3) == [Generation(1, 1)]
    assert workers[0].ring is not None
    assert workers[0].ring.offers(0, 3) == [Generation(2, 1), Generation(1, 1)]
    assert workers[0].ring.offers(0, 2) == [Generation(1, 1)], "another world needs everybody's part"
    new.stop()


def test_two_generations_of_a_rank_are_kept(workers: list[Worker]) -> None:
    for step in range(1, 6):
        workers[0].save(State(step, 0, 3))
    assert held(workers[1]) == {(0, 4), (0, 5)}


def test_an_abandoned_generation_gives_way_before_the_one_that_was_restored(
    workers: list[Worker], helpers: Any
) -> None:
    store = FileStore(workers[0].storage)
    helpers.register_run(store, 1)
    workers[0].save(State(5, 0, 3))
    workers[0].save(State(7, 0, 3))
    helpers.register_run(store, 2, restored_step=5, attempt=2)
    workers[0].save(State(6, 0, 3), slot=1, run=2)
    assert held(workers[1]) == {(0, 5), (0, 6)}


def test_a_state_that_does_not_fit_is_refused_and_the_older_one_stays(workers: list[Worker]) -> None:
    workers[1].stop()
    workers[1].memory = "64Ki"
    workers[1].start()
    workers[0].save(State(1, 0, 3))
    assert held(workers[1]) == {(0, 1)}
    workers[0].save(State(2, 0, 3, elements=2**16))
    assert held(workers[1]) == {(0, 1)}


def test_a_damaged_tensor_comes_from_elsewhere(workers: list[Worker]) -> None:
    """One in the own slot, one at the first peer: each is taken from the next that has it whole."""
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    spec = State(1, 0, 3).meta().tensors
    with workers[0].slot(1).open("r+b") as file:
        file.seek(4096 + spec[1].offset + 5)
        file.write(b"\xff\xfe\xfd")
    found, tensors = restore(workers[0], 1, 0)
    assert tensors == expect(State(1, 0, 3))
    assert found.sources["peer"] == spec[1].bytes


def test_damage_at_a_peer_is_found_and_the_next_one_asked(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    for index, offset in ((0, 9), (2, 9)):
        with workers[index].slot(1).open("r+b") as file:
            file.seek(4096 + offset)
            file.write(b"\xff\xfe\xfd\xfc")
        if index == 0:
            new = lose(workers[1])
            tell([workers[0], new, workers[2]], number=2)
            new.start()
            assert restore(new, 1, 1)[1] == expect(State(1, 1, 3))
    with pytest.raises(CheckpointError, match="is not there"):
        restore(new, 1, 1)  # nobody has it undamaged, and nothing is stored
    new.stop()


def test_the_storage_has_what_no_memory_gives(workers: list[Worker], helpers: Any, tmp_path: Path) -> None:
    generation = helpers.commit_generation(FileStore(workers[0].storage), tmp_path, 5, world=1)
    assert workers[0].ring is not None
    assert workers[0].ring.offers(0, 1) == []
    found, tensors = restore(workers[0], 5, 0)
    assert found.committed
    assert set(found.sources) == {"storage"}
    assert tensors["model/weight"] == helpers.payload_of(generation.step, 4096)


def test_another_next_worker_gets_the_copies_anew(workers: list[Worker]) -> None:
    for step in (1, 2):
        workers[0].save(State(step, 0, 3))
    new = lose(workers[1])
    tell([workers[0], new, workers[2]], number=2)
    new.start()
    catch_up(workers[0])
    assert held(new) == {(0, 1), (0, 2)}
    tell([workers[0], workers[2]], number=3)  # an elastic job goes on with fewer
    catch_up(workers[0])
    assert held(workers[2]) == {(0, 1), (0, 2)}
    new.stop()


def test_a_sidecar_that_started_again_gets_the_copies_anew(workers: list[Worker]) -> None:
    workers[0].save(State(1, 0, 3))
    workers[1].stop()
    workers[1].start()
    assert held(workers[1]) == set()
    assert workers[0].ring is not None
    workers[0].ring._replicator._target.looked_at = float("-inf")
    catch_up(workers[0])
    assert held(workers[1]) == {(0, 1)}


def test_a_push_that_failed_is_repeated_with_pauses(workers: list[Worker]) -> None:
    workers[1].stop()
    workers[0].save(State(1, 0, 3))
    assert workers[0].ring is not None
    target = workers[0].ring._replicator._target
    assert target.failures == 1
    assert not workers[0].ring._replicator.is_due(), "not at once: a save must not wait for a worker that is gone"
    workers[1].start()
    target.try_at = 0.0
    catch_up(workers[0])
    assert held(workers[1]) == {(0, 1)}


def test_what_others_left_here_goes_once_those_who_belong_have_something_newer(workers: list[Worker]) -> None:
    for rank, worker in enumerate(workers):
        worker.save(State(1, rank, 3))
    tell([workers[0], workers[2]], number=2)
    assert held(workers[0]) == {(2, 1)}
    workers[2].ring and catch_up(workers[2])
    workers[0].save(State(2, 0, 2))
    workers[0].save(State(3, 0, 2))
    assert held(workers[2]) == {(0, 2), (0, 3)}, "rank 1's old part is of no use any more"


def test_the_same_state_is_sent_once(workers: list[Worker]) -> None:
    workers[0].save(State(1, 0, 3))
    assert workers[0].ring is not None
    before = workers[0].ring._metrics.pushed_bytes._value.get()
    workers[0].ring._replicator._target.copies.clear()
    catch_up(workers[0])
    assert workers[0].ring._metrics.pushed_bytes._value.get() == before
    assert held(workers[1]) == {(0, 1)}


def peer_of(worker: Worker) -> Peer:
    return Peer(worker.index, "u", worker.pod, "127.0.0.1", worker.port)


def ask(worker: Worker, *, keys: Path | None = None, job: str = JOB_UID, attempt: int = 1) -> int:
    with open_peer(peer_of(worker), RingKeys(keys or worker.keys), job_uid=job, attempt=attempt, worker=0) as client:
        return len(client.holdings())


def test_whoever_has_no_key_token_job_or_attempt_gets_nothing(workers: list[Worker], tmp_path: Path) -> None:
    workers[0].save(State(1, 0, 3))
    assert ask(workers[0]) == 1
    other_job = write_keys(tmp_path / "other")
    with pytest.raises(RingError, match=r"certificate|broke"):
        ask(workers[0], keys=other_job)
    wrong_token = write_keys(tmp_path / "wrong")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (wrong_token / name).write_bytes((workers[0].keys / name).read_bytes())
    with pytest.raises(RefusedError, match="token") as refused:
        ask(workers[0], keys=wrong_token)
    assert refused.value.kind == "token"
    with pytest.raises(RefusedError, match="another job"):
        ask(workers[0], job="uid-2")
    tell(workers, number=2)
    catch_up(workers[0])
    with pytest.raises(RefusedError, match="attempt 1 is superseded by 2"):
        ask(workers[0], attempt=1)
    assert ask(workers[0], attempt=2) == 1


def test_a_connection_of_an_old_attempt_ends_with_it(workers: list[Worker]) -> None:
    workers[0].save(State(1, 0, 3))
    with open_peer(peer_of(workers[0]), RingKeys(workers[0].keys), job_uid=JOB_UID, attempt=1, worker=0) as client:
        assert len(client.holdings()) == 1
        tell(workers, number=2)
        catch_up(workers[0])
        with pytest.raises(RefusedError, match="superseded"):
            client.holdings()


def test_other_keys_are_taken_up_without_a_restart(workers: list[Worker], tmp_path: Path) -> None:
    fresh = write_keys(tmp_path / "fresh")
    old = tmp_path / "old"
    old.mkdir()
    for path in workers[0].keys.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    for path in fresh.iterdir():
        (workers[0].keys / path.name).write_bytes(path.read_bytes())
    workers[0].save(State(1, 0, 3))
    assert held(workers[1]) == {(0, 1)}
    with pytest.raises(RingError):
        ask(workers[1], keys=old)


def test_two_sets_of_keys_are_trusted_while_they_change(workers: list[Worker], tmp_path: Path) -> None:
    fresh = write_keys(tmp_path / "fresh")
    keys = workers[0].keys
    (keys / "ca.crt").write_bytes((keys / "ca.crt").read_bytes() + (fresh / "ca.crt").read_bytes())
    (keys / "tokens").write_bytes((keys / "tokens").read_bytes() + (fresh / "tokens").read_bytes())
    (fresh / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    assert ask(workers[0], keys=fresh) == 0
    assert ask(workers[0]) == 0


def test_without_keys_there_is_no_ring_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    worker = Worker(0, tmp_path / "w", tmp_path / "keys", tmp_path / "store")
    tell([worker, Worker(1, tmp_path / "x", tmp_path / "keys", tmp_path / "store")])
    from prometheus_client import CollectorRegistry

    from sternpost_checkpoint.ring.metrics import RingMetrics
    from sternpost_checkpoint.ring.ring import Ring

    ring = Ring(worker.config(), Catalog(FileStore(worker.storage)), RingMetrics(CollectorRegistry()))
    ring.start()
    assert ring.port is None
    worker.ring = ring
    worker.save(State(1, 0, 2))
    assert ring.offers(0, 2) == [Generation(1, 1)]
    ring.stop()


def test_numbers_of_tensors_are_no_way_around_the_hash(workers: list[Worker]) -> None:
    """What a trainer writes while it is sent is not kept."""
    header = workers[0].save(State(1, 0, 3), push=False)
    assert workers[0].ring is not None
    workers[0].ring._slots.describe(0, 1, header)
    with workers[0].slot(1).open("r+b") as file:
        file.seek(4096 + State(1, 0, 3).meta().tensors[1].offset)
        file.write(np.zeros(64, np.uint8).tobytes())
    workers[0].ring.on_ready_slot(0, 1, header)
    assert held(workers[1]) == set()
