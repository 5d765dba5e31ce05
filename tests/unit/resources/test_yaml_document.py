from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.resources.yaml_document import MAX_DOCUMENTS, Mark, read_documents


def faults(text: str) -> list[str]:
    return [fault.message for document in read_documents(text) for fault in document.faults]


def test_values_and_their_places() -> None:
    (document,) = read_documents("a: 1\nb:\n  - c: x\n    d: [2.5, true, null, 2026-01-02]\n")
    assert document.value == {"a": 1, "b": [{"c": "x", "d": [2.5, True, None, "2026-01-02"]}]}
    assert document.mark(("b", 0, "d")) == Mark(4, 5)
    assert document.mark(("b", 0, "nothing", 3)) == Mark(3, 5)
    assert document.mark(("b", 0, "d", 1)) == Mark(4, 14)


def test_documents_that_are_empty_do_not_count() -> None:
    assert [document.value for document in read_documents("---\n# nothing\n---\na: 1\n---\n")] == [{"a": 1}]
    assert read_documents("") == []


def test_words_that_kubectl_takes_for_truth_values() -> None:
    (document,) = read_documents("[y, N, yes, off, True, 'n', ny]")
    assert document.value == [True, False, True, False, True, "n", "ny"]


def test_an_alias_stands_for_its_value() -> None:
    (document,) = read_documents("a: &x {b: 1}\nc: *x\n")
    assert document.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert not document.faults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "given twice, first in line 1"),
        ("a: &x [*x]\n", "alias to what it is part of"),
        ("a: !!python/object/apply:os.system ['true']\n", "python/object/apply:os.system is not supported"),
        ("a: !!binary aGk=\n", "binary is not supported"),
        ("a: .nan\n", "not a number that JSON has"),
        ("1: a\n", "a name must be a string"),
        ("[a]: b\n", "a name that is no text"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "merges"),
        ("a: [1\n", "not YAML"),
        ("a: \t- b\n", "not YAML"),
        ("a: \x00\n", "cannot stand in YAML"),
        ("a: " + "9" * 5000 + "\n", "number of this length"),
        ("[" * 5000, "levels deep"),
        ("[" * 80 + "]" * 80, "levels deep"),
        ("---\na: 1\n" * (MAX_DOCUMENTS + 1), "documents"),
        ("a: *x\n", "undefined alias"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    assert any(words in message for message in faults(text)), faults(text)


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    began = time.monotonic()
    assert any("aliases counted" in message for message in faults("\n".join(lines)))
    assert time.monotonic() - began < 5


def test_the_place_of_a_syntax_error() -> None:
    (document,) = read_documents("a: 1\nb: [1, 2\nc: 3\n")
    assert document.faults[0].mark.line == 3


# PyYAML writes y and n without quotes, which kubectl would not understand.
TEXT = st.text().filter(lambda text: text.lower() not in ("y", "n"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=4))
@settings(deadline=None, max_examples=80)
def test_what_was_dumped_is_read_again(value: dict[str, object]) -> None:
    (document,) = read_documents(yaml.safe_dump(value))
    assert document.faults == []
    assert document.value == value


@given(st.text(alphabet="ab:-[]{}&*!<|>%@`'\"#,? \n\t1.", max_size=60))
@settings(deadline=None, max_examples=200)
def test_no_text_raises(text: str) -> None:
    for document in read_documents(text):
        assert document.faults or document.value is not None
