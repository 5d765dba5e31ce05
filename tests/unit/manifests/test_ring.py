"""The keys of a job's ring: its own, usable for both sides of TLS, in a Secret that nothing shows."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from sternpost_checkpoint.ring import keys as ring_keys
from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.local.ring_secret import make_ring_secret
from sternpost_operator.cluster.ring_keys import SERVER_NAME, new_ring_keys
from sternpost_operator.manifests.network_policy import build_network_policy
from sternpost_operator.manifests.ring_secret import RING_KEYS, build_ring_secret
from sternpost_operator.resources.training_job import TrainingJob

MakeJob = Callable[..., TrainingJob]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
CHECKPOINT = {"storage": "s3://bucket/gpt"}


def test_both_parts_mean_the_same() -> None:
    assert SERVER_NAME == ring_keys.SERVER_NAME
    assert RING_KEYS == ring_keys.FILES


def test_each_job_has_its_own_keys_and_they_outlive_it() -> None:
    first, second = new_ring_keys("job-1", NOW), new_ring_keys("job-1", NOW)
    assert first.tokens != second.tokens
    assert first.key != second.key
    certificate = x509.load_pem_x509_certificate(first.certificate)
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc > NOW + timedelta(days=3000)
    assert len(first.tokens.split()[0]) >= ring_keys.MIN_TOKEN_LENGTH


def test_nothing_shows_a_secret() -> None:
    keys = new_ring_keys("job-1", NOW)
    assert "PRIVATE" not in repr(keys)
    assert keys.tokens.decode().strip() not in repr(keys)


def test_the_secret_is_what_the_sidecars_read(make_job: MakeJob, tmp_path: Path) -> None:
    secret = build_ring_secret(make_job(checkpoint=CHECKPOINT), new_ring_keys("job-1", datetime.now(UTC)))
    assert secret["metadata"]["name"] == "gpt-ring"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    for name, value in secret["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(value))
    material = ring_keys.RingKeys(tmp_path).current()
    assert material.server.verify_mode is material.client.verify_mode is ssl.CERT_REQUIRED
    assert material.accepts(base64.b64decode(secret["data"]["tokens"]).decode().strip())


def test_on_one_machine_they_are_made_once_and_private(make_job: MakeJob, tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    make_ring_secret(store, make_job())
    assert store.get("secrets", "gpt-ring") is None
    make_ring_secret(store, make_job(checkpoint=CHECKPOINT))
    made = store.get("secrets", "gpt-ring")
    make_ring_secret(store, make_job(checkpoint=CHECKPOINT))
    assert store.get("secrets", "gpt-ring") == made
    path = tmp_path / "secrets" / "gpt-ring.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_nobody_but_the_job_reaches_the_ring(make_job: MakeJob) -> None:
    policy = build_network_policy(make_job(checkpoint=CHECKPOINT), operator_namespace="system")
    for rule in policy["spec"]["ingress"]:
        inside = rule["from"] == [{"podSelector": {"matchLabels": {"sternpost.dev/job": "gpt"}}}]
        assert inside or 9472 not in [port["port"] for port in rule["ports"]]
