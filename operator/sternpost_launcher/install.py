"""Writes the launcher as one zipapp: the same bytes for the same sources."""

from __future__ import annotations

import io
import os
import zipfile
from importlib import resources
from pathlib import Path

FILE_NAME = "launcher.pyz"
SHEBANG = b"#!/usr/bin/env python3\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can hold

# Any Python must be able to read this file, to say that it is too old.
_MAIN = b"""import sys

if sys.version_info < (3, 9):
    sys.exit("launcher.pyz needs Python 3.9 or newer, this is " + sys.version.split()[0])

from sternpost_launcher.command_line import main

sys.exit(main())
"""


def archive() -> bytes:
    """The zipapp's bytes. Stored, not deflated: a trainer image's Python may lack zlib."""
    sources = {
        entry.name: entry.read_bytes()
        for entry in resources.files("sternpost_launcher").iterdir()
        if entry.name.endswith(".py")
    }
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
        _add(bundle, "__main__.py", _MAIN)
        for name in sorted(sources):
            _add(bundle, f"sternpost_launcher/{name}", sources[name])
    return buffer.getvalue()


def install(path: Path) -> Path:
    """Write the zipapp to `path`, or to `launcher.pyz` in it if it is a folder; returns the file. Raises `OSError`."""
    target = path / FILE_NAME if path.is_dir() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(archive())
        temporary.chmod(0o755)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return target


def _add(bundle: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, on whatever system it is made
    entry.external_attr = 0o644 << 16
    bundle.writestr(entry, content)
