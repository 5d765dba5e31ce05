"""Which files there are, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards import platform, researcher

FOLDER = Path(__file__).parents[2] / "charts" / "sternpost" / "dashboards"


def render() -> dict[str, str]:
    """The text of each file by its name; the same for the same code."""
    boards = {"platform.json": platform.build(), "researcher.json": researcher.build()}
    return {name: json.dumps(board, cls=JSONEncoder, indent=2) + "\n" for name, board in boards.items()}


def stale(folder: Path = FOLDER) -> list[Path]:
    """Files that differ from what the code says, are missing, or should not be there."""
    rendered = render()
    paths = {folder / name for name in rendered} | set(folder.glob("*.json"))
    return sorted(path for path in paths if not _is(path, rendered.get(path.name)))


def write(folder: Path = FOLDER) -> list[Path]:
    """Write what is stale, and remove what should not be there; which files that were."""
    rendered = render()
    changed = stale(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in changed:
        if path.name in rendered:
            path.write_text(rendered[path.name], encoding="utf-8")
        else:
            path.unlink()
    return changed


def _is(path: Path, text: str | None) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False
