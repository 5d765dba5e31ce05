"""The stores' conformance suite on a real S3 server, and what only happens there."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import pytest
from s3_faults import Fault, FaultyProxy
from store_conformance import StoreConformance
from versitygw import BUCKET, SECRET_KEY, S3Server

from sternpost_checkpoint.errors import StoreError
from sternpost_checkpoint.store.base import Store
from sternpost_checkpoint.store.object_store import PART_BYTES
from sternpost_checkpoint.store.uri import open_store

PIECE = b"x" * (8 << 20)


class TestS3(StoreConformance):
    # This server compares first and then moves the object to its place; only S3 itself decides in one step.
    winners = 8


def large(parts: int = 3) -> Iterator[bytes]:
    """Enough for a multipart upload of more than `parts` parts."""
    for _ in range(parts * PART_BYTES // len(PIECE) + 1):
        yield PIECE


def aborted(proxy: FaultyProxy) -> bool:
    """Whether the client told the server to forget the parts. (One that was on its way may still arrive behind that.)"""
    return any(method == "DELETE" and "uploadId=" in path for method, path in proxy.seen)


def test_an_upload_that_is_broken_off_is_aborted(troubled_store: Store, proxy: FaultyProxy) -> None:
    def pieces() -> Iterator[bytes]:
        yield from large()
        deadline = time.monotonic() + 10
        while not any("partNumber=" in path for _, path in proxy.seen) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyError("torn")

    with pytest.raises(KeyError, match="torn"):
        troubled_store.put("a/b", pieces())
    assert troubled_store.list("") == []
    assert aborted(proxy)


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.CUT])
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_trouble_that_passes_is_not_seen(troubled_store: Store, proxy: FaultyProxy, fault: Fault, method: str) -> None:
    troubled_store.put("before", [b"1"])
    proxy.plan(fault, times=2, method=method)
    troubled_store.put("a", [b"123"])
    assert troubled_store.get("a", 9) == b"123"
    assert troubled_store.read("before", 0, 1) == b"1"
    assert [entry.name for entry in troubled_store.list("")] == ["a", "before"]
    assert proxy.injected == 2


def test_throttled_parts_are_sent_again(troubled_store: Store, proxy: FaultyProxy) -> None:
    proxy.plan(Fault.SLOW_DOWN, times=3, method="PUT", path="partNumber=")
    proxy.plan(Fault.SLOW_DOWN, times=1, method="POST", path="uploads")
    size = troubled_store.put("a/large", large())
    assert troubled_store.size("a/large") == size
    assert proxy.injected == 4


@pytest.mark.parametrize("path", ["partNumber=2", "uploadId="])
def test_a_large_upload_that_cannot_go_on_is_aborted(troubled_store: Store, proxy: FaultyProxy, path: str) -> None:
    """Whether a part or the completion is refused for good: nothing becomes visible, and no part stays to be paid for."""
    method = "PUT" if "part" in path else "POST"
    proxy.plan(Fault.SLOW_DOWN, times=1000, method=method, path=path)
    with pytest.raises(StoreError, match=r"cannot write a/large in s3://.*SlowDown"):
        troubled_store.put("a/large", large())
    assert troubled_store.list("") == []
    assert aborted(proxy)


def test_throttling_that_does_not_end_is_an_error_that_says_so(troubled_store: Store, proxy: FaultyProxy) -> None:
    proxy.plan(Fault.SLOW_DOWN, times=1000)
    for call in (
        lambda: troubled_store.get("a", 1),
        lambda: troubled_store.put("a", [b"1"]),
        lambda: troubled_store.put_if_absent("a", b"1"),
        lambda: troubled_store.list(""),
    ):
        with pytest.raises(StoreError, match=r"503.*SlowDown"):
            call()


def test_a_conflict_of_two_conditional_writes_says_nothing_about_who_won(
    troubled_store: Store, proxy: FaultyProxy
) -> None:
    proxy.plan(Fault.CONFLICT, times=2, method="PUT")
    assert troubled_store.put_if_absent("manifest.json", b"1")
    assert troubled_store.get("manifest.json", 9) == b"1"
    proxy.plan(Fault.CONFLICT, times=1, method="PUT")
    assert not troubled_store.put_if_absent("manifest.json", b"2")
    proxy.plan(Fault.CONFLICT, times=1000, method="PUT")
    with pytest.raises(StoreError, match="refuses it again and again"):
        troubled_store.put_if_absent("other.json", b"1")
    assert not troubled_store.replace("manifest.json", b"2", b"1")


def test_an_answer_that_is_lost_leaves_one_truth(troubled_store: Store, proxy: FaultyProxy) -> None:
    """The store did it and nobody heard: whatever the caller is told, a second look shows what is there."""
    proxy.plan(Fault.LOST_ANSWER, method="PUT", path="manifest")
    try:
        written = troubled_store.put_if_absent("manifest.json", b"1")
    except StoreError:
        written = True
    assert troubled_store.get("manifest.json", 9) == b"1"
    assert written in (True, False)
    assert not troubled_store.put_if_absent("manifest.json", b"1")


def test_a_body_that_ends_early_is_never_taken_for_the_whole(troubled_store: Store, proxy: FaultyProxy) -> None:
    data = bytes(range(256)) * 4096
    troubled_store.put("a", [data])
    proxy.plan(Fault.SHORT_BODY, times=1, method="GET")
    found = b""
    with contextlib.suppress(StoreError):
        found = troubled_store.read("a", 0, len(data))
    assert found in (b"", data)
    assert proxy.injected == 1


def test_wrong_credentials_are_named_and_not_shown(
    s3: S3Server, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-secret-5f2c"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    refused = open_store(f"s3://{BUCKET}/x")
    with pytest.raises(StoreError, match="SignatureDoesNotMatch") as error:
        refused.put("a", [b"1"])
    shown = f"{error.value!r} {error.value.__cause__!r} {caplog.text} {refused!r} {refused._objects!r}"
    assert wrong not in shown
    assert SECRET_KEY not in shown
    assert "StringToSign" not in shown


def test_a_bucket_that_is_not_there(store: Store) -> None:
    with pytest.raises(StoreError, match="NoSuchBucket"):
        open_store("s3://no-such-bucket-here/x").put("a", [b"1"])
