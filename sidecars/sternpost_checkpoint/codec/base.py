"""The interface of a codec, and the list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, cast

from sternpost_checkpoint.errors import CheckpointError, FormatError

PIECE_BYTES = 4 * 2**20
"""Raw bytes that a codec works on at a time; a multiple of every element's width."""


class NotEncodable(CheckpointError):  # noqa: N818 # not a failure: the caller takes another codec
    """This tensor does not fit this codec: wrong dtype, too many exceptions, error bound exceeded."""


@dataclass(frozen=True)
class Beside:
    """What a tensor may be encoded against: *decoded* bytes, the very ones that decoding will have."""

    base: memoryview | None = None
    """The same tensor (dtype and shape) in the parent generation."""
    companion: memoryview | None = None
    """Another tensor of the same generation, with as many elements."""
    companion_dtype: str | None = None

    def for_codec(self, codec: Codec) -> Beside:
        """The part of it that the codec needs."""
        return Beside(
            base=self.base if codec.needs_base else None,
            companion=self.companion if codec.needs_companion else None,
            companion_dtype=self.companion_dtype if codec.needs_companion else None,
        )

    def suffices(self, codec: Codec) -> bool:
        """Whether all that the codec needs is there."""
        return (self.base is not None or not codec.needs_base) and (
            self.companion is not None or not codec.needs_companion
        )

    def encodable_base(self, size: int, codec: str) -> memoryview:
        """The base, to encode a tensor of `size` bytes against. Raises NotEncodable."""
        if self.base is None or self.base.nbytes != size:
            raise NotEncodable(f"{codec}: there is no base of the same size")
        return self.base

    def encodable_companion(self, size: int, codec: str) -> memoryview:
        """The companion, of `size` bytes, to encode against. Raises NotEncodable."""
        if self.companion is None or self.companion.nbytes != size:
            raise NotEncodable(f"{codec}: there is no companion of as many elements")
        return self.companion

    def required_base(self, size: int, codec: str) -> memoryview:
        """The base, to decode a tensor of `size` bytes with. Raises FormatError."""
        return _required(self.base, size, codec, "base")

    def required_companion(self, size: int, codec: str) -> memoryview:
        """The companion, of `size` bytes, to decode with. Raises FormatError."""
        return _required(self.companion, size, codec, "companion")


ALONE = Beside()


def _required(part: memoryview | None, size: int, codec: str, what: str) -> memoryview:
    if part is None:
        raise FormatError(f"{codec}: this tensor can be decoded only with its {what}, which is not there")
    if part.nbytes != size:
        raise FormatError(f"{codec}: the {what} has {part.nbytes} bytes where {size} are needed")
    return part


class Codec(ABC):
    """Turns the bytes of one dense, little endian tensor into stored bytes and back."""

    name: ClassVar[str]
    """Stands in the index; another way of writing needs another name."""
    lossless: ClassVar[bool] = True
    """Decoding gives the bytes that were encoded."""
    needs_base: ClassVar[bool] = False
    needs_companion: ClassVar[bool] = False

    @abstractmethod
    def encode(self, raw: memoryview, dtype: str, beside: Beside = ALONE) -> Iterator[bytes | memoryview]:
        """Yield the stored bytes of a tensor, in bounded pieces.

        Raises NotEncodable before the first piece; a codec that could only find out later looks through the tensor
        first. Equal arguments give equal bytes.
        """

    @abstractmethod
    def decode(self, stored: memoryview, raw: memoryview, dtype: str, beside: Beside = ALONE) -> None:
        """Fill `raw`, which has the tensor's true size.

        `stored` is as an attacker would write it: anything but a valid encoding raises FormatError or fills `raw` with
        something whose hash is wrong, and never takes memory beyond a few pieces.
        """


_CODECS = {
    "raw": ("raw", "RawCodec"),
    "zstd-planes": ("planes", "PlanesCodec"),
    "mask": ("mask", "MaskCodec"),
    "mask-ans": ("mask_ans", "MaskAnsCodec"),
    "mask-zstd": ("mask_zstd", "MaskZstdCodec"),
    "xor-planes": ("xor", "XorCodec"),
    "diff-ans": ("diff_ans", "DiffAnsCodec"),
    "float-ans": ("float_ans", "FloatAnsCodec"),
    "low-bits": ("low_bits", "LowBitsCodec"),
    "rounded": ("rounded", "RoundedCodec"),
    "clusters-8": ("clusters", "Clusters8Codec"),
    "clusters-4": ("clusters", "Clusters4Codec"),
}
"""Name in the index to module and class; imported when used, because compiled kernels take a second to load."""


def names() -> list[str]:
    """All codecs of this release."""
    return sorted(_CODECS)


def by_name(name: str) -> Codec:
    """The codec that wrote `name` into an index. Raises FormatError for an unknown one."""
    if name not in _CODECS:
        raise FormatError(f"codec {name!r} is unknown to this release, which has {', '.join(names())}")
    module, cls = _CODECS[name]
    return cast("Codec", getattr(import_module(f"sternpost_checkpoint.codec.{module}"), cls)())
