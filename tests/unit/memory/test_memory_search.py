from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sternpost_memory.model import NewObservation
from sternpost_memory.retrieval.query import match_expression, terms
from sternpost_memory.retrieval.search import search
from sternpost_memory.store.base import CandidateKind
from sternpost_memory.store.sqlite import SqliteStore


def test_terms() -> None:
    assert terms("Why was node-3 lost?") == ["node-3", "lost"]
    assert terms("what is it") == ["what", "is", "it"]
    assert terms('"; DROP TABLE -- *') == ["drop", "table"]
    assert terms("…!") == []
    assert match_expression(["node-3", "x"]) == '"node-3" OR "x"'


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80)
@given(query=st.text(st.sampled_from("ab \"'*^:()-+{}NEAR AND OR NOT\x00é🦜~"), min_size=1, max_size=40))
def test_no_query_is_read_as_syntax(query: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = SqliteStore(tmp_path_factory.getbasetemp() / "syntax.db")
    store.append("a", [NewObservation(text="a b NEAR AND")], now=1.0, idempotency_key="once")
    search(store, "a", query, limit=5)
    store.close()


def test_the_current_value_comes_before_the_stale_one(store: SqliteStore, drain: Callable[..., None]) -> None:
    for value in ("0.1", "0.2", "0.3"):
        store.append(
            "a",
            [NewObservation(text=f"learning rate is {value}", entities=["job/b"], attributes={"learning rate": value})],
            now=float(value) * 100,
        )
    drain(store, "a")
    hits = search(store, "a", "learning rate", limit=9).hits
    assert hits[0].candidate.kind is CandidateKind.FACT
    assert hits[0].candidate.text == "job/b learning rate: 0.3"
    stale = [hit.candidate.superseded for hit in hits if hit.candidate.kind is CandidateKind.OBSERVATION]
    assert stale == [False, True, True]


def test_spaces_do_not_see_each_other(store: SqliteStore) -> None:
    store.append("a", [NewObservation(text="secret of a")], now=1.0)
    store.append("b", [NewObservation(text="other words")], now=1.0)
    assert search(store, "b", "secret", limit=5).hits == []
    assert search(store, "never-written", "secret", limit=5).hits == []
