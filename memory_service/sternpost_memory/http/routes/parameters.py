"""Parameters that several routes have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from sternpost_memory import limits
from sternpost_memory.model import SpaceName

Space = Annotated[SpaceName, Path(description="A tenant's memory.")]
Limit = Annotated[int, Query(ge=1, le=limits.PAGE_ITEMS, description="How many at most.")]
Cursor = Annotated[
    str, Query(max_length=2000, description="`next` of the page before; leave it out for the first page.")
]
