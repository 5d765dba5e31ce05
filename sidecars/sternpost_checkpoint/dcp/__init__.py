"""torch.distributed.checkpoint on Sternpost's storage: one line changes.

```
dcp.save(state, storage_writer=SternpostWriter("s3://bucket/job"))
dcp.load(state, storage_reader=SternpostReader("s3://bucket/job"))
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sternpost_checkpoint.dcp.reader import SternpostReader
    from sternpost_checkpoint.dcp.writer import SternpostWriter

__all__ = ["SternpostReader", "SternpostWriter"]


def __getattr__(name: str) -> Any:
    # Lazy: the import of foreign checkpoints is here too, and needs no torch.
    from sternpost_checkpoint.dcp.needs import need_torch  # noqa: PLC0415

    if name == "SternpostWriter":
        need_torch(name)
        from sternpost_checkpoint.dcp.writer import SternpostWriter  # noqa: PLC0415

        return SternpostWriter
    if name == "SternpostReader":
        need_torch(name)
        from sternpost_checkpoint.dcp.reader import SternpostReader  # noqa: PLC0415

        return SternpostReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
