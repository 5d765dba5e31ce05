"""From a question to the terms that the index is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sternpost_memory import limits

TERM = re.compile(r"[^\W_]+(?:[._:/-][^\W_]+)*")
"""A compound such as `node-3` or `node/node-3` is one term, found where its parts stand side by side."""
# fmt: off
STOP_WORDS = frozenset({
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do", "does",
    "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "of", "on",
    "or", "our", "should", "so", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this",
    "those", "to", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will",
    "with", "would", "you", "your",
})
# fmt: on


def terms(query: str) -> list[str]:
    """The words to look for, in lower case, each once, at most `limits.QUERY_TERMS`.

    Words that say nothing are left out, unless there are no others.
    """
    found = list(dict.fromkeys(match.group() for match in TERM.finditer(query.lower())))
    telling = [term for term in found if term not in STOP_WORDS]
    return (telling or found)[: limits.QUERY_TERMS]


def match_expression(found: Sequence[str]) -> str:
    """An FTS5 expression: any of the terms, each as a phrase. Quoted, so that no query is read as syntax."""
    return " OR ".join('"' + term.replace('"', '""') + '"' for term in found)
