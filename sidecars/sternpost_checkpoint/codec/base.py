"""The interface of a codec, and the list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from sternpost_checkpoint.errors import FormatError


class Codec(ABC):
    """Turns the bytes of one tensor into stored bytes and back, exactly."""

    name: ClassVar[str]
    """Stands in the index; another way of writing needs another name."""

    @abstractmethod
    def encode(self, raw: memoryview, item_bytes: int) -> Iterator[bytes | memoryview]:
        """Yield the stored bytes of a tensor of `item_bytes` wide elements, in bounded pieces."""

    @abstractmethod
    def decode(self, stored: memoryview, raw: memoryview, item_bytes: int) -> None:
        """Fill `raw`, which has the tensor's true size. Raises FormatError; never needs memory beyond a few pieces."""


def by_name(name: str) -> Codec:
    """The codec that wrote `name` into an index. Raises FormatError for an unknown one."""
    from sternpost_checkpoint.codec.planes import PlanesCodec  # noqa: PLC0415 # the codecs import this module
    from sternpost_checkpoint.codec.raw import RawCodec  # noqa: PLC0415

    codecs: dict[str, type[Codec]] = {codec.name: codec for codec in (RawCodec, PlanesCodec)}
    if name not in codecs:
        raise FormatError(f"codec {name!r} is unknown to this release, which has {', '.join(sorted(codecs))}")
    return codecs[name]()
