"""What kopf is allowed to do here: watch, and nothing else."""

from __future__ import annotations

import json

import kopf
import pytest
from kopf._cogs.clients import api as kopf_api

from sternpost_operator import handlers
from sternpost_operator.cluster.kubernetes.inventory import Inventory
from sternpost_operator.resources.deep_json import MAX_DEPTH, too_deep


def test_kopf_reads_objects_of_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kopf_api.json is json or kopf_api.json.loads, "kopf has moved where it reads its lines: look at handlers.py"
    monkeypatch.setattr(kopf_api, "json", kopf_api.json)
    handlers.read_any_depth()
    depth = 100_000
    found = kopf_api.json.loads('{"a":' * depth + "1" + "}" * depth)
    place = too_deep(found)
    assert place is not None
    assert len(place) == MAX_DEPTH


def test_settings_under_which_nothing_is_written() -> None:
    settings = handlers.build_settings()
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    body = kopf.Body({"metadata": {"name": "gpt", "annotations": {"a": "b"}}, "spec": {"x": 1}})
    assert settings.persistence.diffbase_storage.fetch(body=body) is None
    assert dict(settings.persistence.diffbase_storage.build(body=body)) == {}


def test_only_handlers_that_leave_the_objects_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_api, "json", kopf_api.json)
    registry = handlers.build_registry(
        Inventory(), lambda _: None, server="https://127.0.0.1", make_session=lambda: pytest.fail("not yet")
    )
    assert registry._changing.get_all_handlers() == []
    assert registry._spawning.get_all_handlers() == []
    kinds = {handler.selector.any_name for handler in registry._watching.get_all_handlers() if handler.selector}
    assert kinds == {"trainingjobs", "attempts", "anomalies", "pods", "nodes"}
