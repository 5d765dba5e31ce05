"""Which topics an observation belongs to: those of its entities, or the one whose words it shares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sternpost_memory import limits
from sternpost_memory.consolidation.engine import Profile, Routes
from sternpost_memory.model import Observation

GENERAL = "general"
"""Topic of what fits nowhere else."""
SIMILAR = 0.2
"""Cosine of two TF-IDF vectors from which on an observation belongs to a topic."""
# A name such as node-3 or lr_schedule is one word, and so are its parts.
WORD = re.compile(r"[^\W_]+(?:[._-][^\W_]+)*")
PART = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; a compound such as `node-3` counts, and so do its parts."""
    found: list[str] = []
    for match in WORD.finditer(text.lower()):
        word = match.group()
        found.append(word)
        parts = PART.findall(word)
        if len(parts) > 1:
            found += parts
    return found


def route(observations: Sequence[Observation], profiles: Sequence[Profile]) -> Routes:
    """The topics of each observation: its entities, else the most similar profile, else `general`.

    Topics that the same observations begin can be chosen, too.
    """
    routes = {item.seq: tuple(dict.fromkeys(item.entities)) for item in observations if item.entities}
    homeless = [item for item in observations if not item.entities]
    texts = {profile.topic: profile.text for profile in profiles}
    if homeless:
        for item in observations:
            for entity in item.entities:
                texts[entity] = f"{texts.get(entity, entity)}\n{item.text}"
    for item, topic in zip(homeless, _most_similar([item.text for item in homeless], texts), strict=True):
        routes[item.seq] = (topic,)
    return routes


def _most_similar(texts: Sequence[str], profiles: Mapping[str, str]) -> list[str]:
    # `general` takes what is left over; were it compared, it would soon have every word and draw everything.
    candidates = sorted(topic for topic in profiles if topic != GENERAL)
    if not texts or not candidates:
        return [GENERAL] * len(texts)
    # Imported where it is needed: it takes longer to load than the rest of the service.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectorizer = TfidfVectorizer(analyzer=words, sublinear_tf=True)
    topics = vectorizer.fit_transform([profiles[topic][: limits.PROFILE_CHARACTERS] for topic in candidates])
    similarities = (vectorizer.transform(texts) @ topics.T).toarray()
    return [candidates[int(row.argmax())] if row.max() >= SIMILAR else GENERAL for row in similarities]
