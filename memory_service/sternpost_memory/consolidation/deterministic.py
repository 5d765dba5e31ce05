"""The engine that needs no model: a topic for each entity, a slot for each attribute, every observation word for word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sternpost_memory import limits
from sternpost_memory.consolidation import documents, routing
from sternpost_memory.consolidation.categories import counted
from sternpost_memory.consolidation.engine import Base, Batch, Change, Profile, Routes, TopicChange, TopicState
from sternpost_memory.consolidation.slots import facts_of, merge_current, supersede
from sternpost_memory.model import Fact, Observation, Topic


class DeterministicEngine:
    """The same observations give the same documents, byte for byte."""

    name = "deterministic/1"

    def route(self, batch: Batch, profiles: Sequence[Profile]) -> Routes:
        """See `routing.route`."""
        return routing.route(batch.observations, profiles)

    def consolidate(self, base: Base, routes: Routes) -> Change:
        """Fold the batch into the topics and slots of `base`."""
        batch = base.batch
        facts = supersede(
            (fact for observation in batch.observations for fact in facts_of(observation)), base.neighbours
        )
        changed: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            changed[fact.entity].append(fact)
        added: dict[str, list[Observation]] = defaultdict(list)
        for observation in batch.observations:
            for topic in routes[observation.seq]:
                added[topic].append(observation)
        return Change(
            space=batch.space,
            base_seq=batch.base_seq,
            last_seq=batch.last_seq,
            engine=self.name,
            topics=[
                _grown(
                    topic,
                    base.topics.get(topic),
                    added[topic],
                    merge_current(base.current_facts.get(topic, ()), changed[topic]),
                )
                for topic in sorted(added)
            ],
            facts=facts,
        )


def _grown(topic_id: str, state: TopicState | None, added: Sequence[Observation], facts: Sequence[Fact]) -> TopicChange:
    before = state.topic if state else None
    counts = before.categories if before else {}
    for observation in added:
        counts = counted(counts, observation)
    times = [observation.event_time for observation in added]
    first_event_at = min([*times, before.first_event_at] if before else times)
    last_event_at = max([*times, before.last_event_at] if before else times)
    newest = documents.newest_first([*(state.newest if state else ()), *added])[: limits.DOCUMENT_ENTRIES]
    sources = (before.sources if before else 0) + len(added)
    text = documents.body(
        title=topic_id,
        counts=counts,
        facts=facts,
        newest=newest,
        sources=sources,
        first_event_at=first_event_at,
    )
    header = documents.Header(
        id=topic_id,
        title=topic_id,
        summary=documents.summary(counts, last_event_at),
        created_at=before.created_at if before else added[0].received_at,
        updated_at=added[-1].received_at,
        version=before.version + 1 if before else 1,
        sources=sources,
    )
    return TopicChange(
        base_version=before.version if before else 0,
        topic=Topic(
            id=topic_id,
            title=header.title,
            summary=header.summary,
            created_at=header.created_at,
            updated_at=header.updated_at,
            version=header.version,
            sources=sources,
            size=len(text.encode()),
            first_event_at=first_event_at,
            last_event_at=last_event_at,
            categories=counts,
            profile=_profile(topic_id, facts, newest),
            document=documents.document(header, text),
        ),
        added=added,
    )


def _profile(topic_id: str, facts: Sequence[Fact], newest: Sequence[Observation]) -> str:
    parts = [topic_id, *(f"{fact.attribute} {fact.value}" for fact in facts)]
    parts += [observation.text for observation in newest]
    return "\n".join(parts)[: limits.PROFILE_CHARACTERS]
