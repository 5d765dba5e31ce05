"""Prints what the memory service knows of an entity: `python3 - SPACE ENTITY` in the operator's Pod; standard library only."""

import os
import sys
import urllib.parse
import urllib.request
from pathlib import Path

space, entity = sys.argv[1:]
token = Path(os.environ["STERNPOST_MEMORY_TOKEN_FILE"]).read_text().strip()
query = urllib.parse.urlencode({"entity": entity, "history": "true", "limit": 200})
url = f"{os.environ['STERNPOST_MEMORY_URL']}/v1/spaces/{space}/facts?{query}"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 -- the chart's own URL
with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
    sys.stdout.write(answer.read().decode())
