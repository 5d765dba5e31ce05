"""How large anything may be. Everything that arrives is bounded before it is kept."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

TEXT_BYTES = 16 * KIB
"""UTF-8 bytes of one observation's text."""
BATCH_OBSERVATIONS = 256
BODY_BYTES = 2 * MIB
"""Bytes of one request's body."""
SOURCE_CHARACTERS = 200
ENTITY_CHARACTERS = 200
ENTITIES = 32
ATTRIBUTES = 64
ATTRIBUTE_NAME_CHARACTERS = 100
ATTRIBUTE_VALUE_CHARACTERS = 4096
IDEMPOTENCY_KEY_CHARACTERS = 200
QUERY_CHARACTERS = 2000
QUERY_TERMS = 32
"""Words of a query that are looked up; what follows is ignored."""
SEARCH_HITS = 100
PAGE_ITEMS = 200
LATEST_TIME = 253_402_300_799.0
"""Unix seconds of the last second of the year 9999, the latest that a date can be written for."""

DOCUMENT_ENTRIES = 100
"""Newest observations shown word for word in a topic document; the older ones are counted, and found by search and history."""
DOCUMENT_ENTRY_BYTES = 64 * KIB
"""UTF-8 bytes of all entries shown in a topic document."""
DOCUMENT_FACTS = 200
CATEGORIES = 64
"""Different categories counted by name in one topic; further ones are counted together."""
PROFILE_CHARACTERS = 4 * KIB
"""Text of a topic that an observation without entities is compared with."""
PROFILES = 1000
"""Topics, the last updated first, that an observation without entities is compared with."""

CONSOLIDATION_OBSERVATIONS = 512
"""Observations of one consolidation, which is one transaction."""
