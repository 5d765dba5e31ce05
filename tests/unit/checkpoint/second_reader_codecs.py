"""The codecs of FORMAT.md 2.3, decoded as that text says and with nothing else; slow and plain."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard

PIECE_BYTES = 4 * 2**20
UNITS, CLUSTER_UNITS = 262_144, 65_536
FLOATS = {"bfloat16": (7, 8), "float16": (10, 5), "float32": (23, 8), "complex64": (23, 8)}
"""Lowest bit and width of the exponent."""


@dataclass
class Stored:
    """Stored bytes, read from the front."""

    data: bytes
    position: int = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.position : self.position + count]
        assert len(part) == count
        self.position += count
        return part

    def number(self, form: str) -> int:
        value: int = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]
        return value

    def array(self, count: int, width: int) -> np.ndarray:
        return np.frombuffer(self.take(count * width), dtype=f"<u{width}")

    def section(self, size: int) -> np.ndarray:
        method, data = self.number("B"), self.take(self.number("I"))
        if method == 0:
            assert len(data) == size
        elif method == 1:
            assert zstandard.frame_content_size(data) == size
            data = zstandard.decompress(data)
        else:
            assert (method, len(data)) == (2, 1)
            data = data * size
        return np.frombuffer(data, dtype=np.uint8)

    def symbols(self, m: int, alphabet: int, contexts: np.ndarray | None = None) -> np.ndarray:
        if m == 0:
            return np.zeros(0, dtype=np.int64)
        contexts = np.zeros(m, dtype=np.int64) if contexts is None else contexts
        table_bytes, word_count = self.number("I"), self.number("I")
        states = [self.number("I") for _ in range(4)]
        table = frequencies(self.take(table_bytes), alphabet)
        words = iter(self.array(word_count, 2).tolist())
        owners = [np.repeat(np.arange(alphabet), row).tolist() for row in table]
        starts = [np.concatenate(([0], np.cumsum(row))).tolist() for row in table]
        counts, places = table.tolist(), contexts.tolist()
        quarter = -(-m // 4)
        found = [0] * (4 * quarter)
        for j in range(quarter):
            for s in range(4):
                context = places[min(s * quarter + j, m - 1)]
                slot = states[s] & 4095
                symbol = found[s * quarter + j] = owners[context][slot]
                states[s] = counts[context][symbol] * (states[s] >> 12) + slot - starts[context][symbol]
                if states[s] < 32_768:
                    states[s] = states[s] * 65_536 + next(words)
        assert states == [32_768] * 4
        assert next(words, None) is None
        return np.array(found[:m], dtype=np.int64)


def frequencies(data: bytes, alphabet: int) -> np.ndarray:
    values: list[int] = []
    stored = Stored(data)
    while stored.position < len(data):
        first = stored.number("B")
        if first == 0:
            values += [0] * (1 + stored.number("B"))
        else:
            values.append(first if first < 128 else (first - 128) * 256 + stored.number("B"))
    table = np.array(values).reshape(-1, alphabet)
    assert all(total in (0, 4096) for total in table.sum(axis=1))
    return table


def decode(  # noqa: PLR0912 # a branch for each codec
    codec: str,
    stored: bytes,
    size: int,
    width: int,
    *,
    dtype: str,
    base: bytes | None,
    companion: bytes | None,
    companion_dtype: str | None,
) -> bytes:
    """Bytes of a tensor of `size` bytes with elements of `width` bytes."""
    data = Stored(stored)
    unit = 8 if width == 16 else 4 if dtype == "complex64" and codec.endswith("-ans") else width
    pieces = []
    if codec == "raw":
        return data.take(size)
    if codec in ("zstd-planes", "xor-planes"):
        for start in range(0, size, PIECE_BYTES):
            count = min(PIECE_BYTES, size - start)
            assert data.number("I") == count
            raw = np.stack([data.section(count // width) for _ in range(width)], axis=1).tobytes()
            if base is not None:
                other = np.frombuffer(base[start : start + count], dtype=np.uint8)
                raw = (np.frombuffer(raw, dtype=np.uint8) ^ other).tobytes()
            pieces.append(raw)
    else:
        step = CLUSTER_UNITS if codec.startswith("clusters") else UNITS
        for start in range(0, size // unit, step):
            n = min(step, size // unit - start)
            before = patterns(base, unit, start, n)
            beside = patterns(companion, 2 if codec == "low-bits" else 4, start, n)
            match codec:
                case "mask" | "mask-zstd" | "mask-ans":
                    units = masked(data, codec, n, unit, before, dtype=dtype)
                case "diff-ans":
                    units = differences(data, n, unit, before, dtype)
                case "float-ans":
                    units = floats(data, n, unit)
                case "low-bits":
                    units = low_bits(data, n, beside, str(companion_dtype))
                case "rounded":
                    units = exceptions(data, 2, rounded(beside, dtype))
                case "clusters-8" | "clusters-4":
                    units = clusters(data, n, 256 if codec == "clusters-8" else 16)
                case _:
                    raise AssertionError(f"FORMAT.md does not say how to read {codec}")
            pieces.append(units.astype(f"<u{unit}").tobytes())
    assert data.position == len(stored)
    return b"".join(pieces)


def patterns(data: bytes | None, unit: int, start: int, n: int) -> np.ndarray:
    if data is None:
        return np.zeros(0, dtype=np.uint64)
    return np.frombuffer(data, dtype=f"<u{unit}")[start : start + n].astype(np.uint64)


def bits(mask: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(mask, bitorder="little")[:n].astype(bool)


def masked(data: Stored, codec: str, n: int, unit: int, base: np.ndarray, *, dtype: str) -> np.ndarray:
    changed, size = data.number("I"), -(-n // 8)
    if codec == "mask":
        mask = bits(data.array(size, 1), n)
        new = data.array(changed, unit).astype(np.uint64)
    elif codec == "mask-zstd":
        mask = bits(data.section(size), n)
        planes = [data.section(changed).astype(np.uint64) << np.uint64(8 * plane) for plane in range(unit)]
        new = np.sum(planes, axis=0, dtype=np.uint64)
    else:
        mask = bits(data.symbols(size, 256).astype(np.uint8), n)
        new = differences(data, changed, unit, base[mask], dtype) if changed else base[:0]
    assert mask.sum() == changed
    units = base.copy()
    units[mask] = new
    return units


def differences(data: Stored, n: int, unit: int, base: np.ndarray, dtype: str) -> np.ndarray:
    top, contexts = data.number("B"), np.zeros(n, dtype=np.int64)
    if dtype in FLOATS:
        low, width = FLOATS[dtype]
        exponents = (base.astype(np.int64) >> low) & ((1 << width) - 1)
        contexts = np.clip(top - exponents, 0, 15)
    symbols = data.symbols(n, 40 if unit == 2 else 72, contexts)
    loose = np.unpackbits(data.array(data.number("I"), 1), bitorder="little")
    steps, position = [], 0
    for symbol in symbols.tolist():
        number = symbol
        if symbol >= 16:
            count = (symbol >> 1) - 5
            extra = sum(int(bit) << place for place, bit in enumerate(loose[position : position + count]))
            position += count
            number = ((2 + (symbol & 1)) << count) + extra
        steps.append(number // 2 if number % 2 == 0 else -(number + 1) // 2)
    full = 1 << (8 * unit)
    sign = full >> 1
    result = []
    for pattern, step in zip(base.tolist(), steps, strict=True):
        if dtype in FLOATS:
            ordered = pattern ^ (full - 1) if pattern & sign else pattern | sign
            ordered = (ordered + step) % full
            result.append(ordered & ~sign if ordered & sign else ordered ^ (full - 1))
        else:
            result.append((pattern + step) % full)
    return np.array(result, dtype=np.uint64)


def floats(data: Stored, n: int, unit: int) -> np.ndarray:
    symbols = data.symbols(n, 256).astype(np.uint64)
    if unit == 1:
        return symbols
    rest = data.section(n).astype(np.uint64)
    sign, mantissa = rest >> np.uint64(7), rest & np.uint64(127)
    if unit == 2:
        return sign << np.uint64(15) | symbols << np.uint64(7) | mantissa
    low = np.frombuffer(data.section(2 * n).tobytes(), dtype="<u2").astype(np.uint64)
    return sign << np.uint64(31) | symbols << np.uint64(23) | mantissa << np.uint64(16) | low


def exceptions(data: Stored, unit: int, units: np.ndarray) -> np.ndarray:
    count = data.number("I")
    places = data.array(count, 4)
    units = units.copy()
    units[places] = data.array(count, unit)
    return units


def low_bits(data: Stored, n: int, weights: np.ndarray, weight_dtype: str) -> np.ndarray:
    low = data.section(n).astype(np.int64)
    high = (data.symbols(n, 256) if data.number("B") else data.section(n)).astype(np.int64)
    if weight_dtype == "bfloat16":
        wide = weights.astype(np.int64) << 16
    else:
        wide = weights.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32).astype(np.int64)
        nan = ((weights & np.uint64(0x7C00)) == 0x7C00) & ((weights & np.uint64(0x3FF)) != 0)
        shifted = (
            (weights & np.uint64(0x8000)) << np.uint64(16)
            | np.uint64(0xFF << 23)
            | (weights & np.uint64(0x3FF)) << np.uint64(13)
        )
        wide[nan] = shifted[nan].astype(np.int64)
    return exceptions(data, 4, ((wide + 256 * high + low - 32_768) % 2**32).astype(np.uint64))


def rounded(masters: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        x = masters.astype(np.uint64)
        return ((x + np.uint64(32_767) + ((x >> np.uint64(16)) & np.uint64(1))) % np.uint64(2**32)) >> np.uint64(16)
    with np.errstate(over="ignore"):
        half = masters.astype(np.uint32).view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint64)
    nan = (masters & np.uint64(0x7FFFFFFF)) > 0x7F800000
    return np.where(nan, (masters >> np.uint64(16)) & np.uint64(0x8000) | np.uint64(0x7E00), half)


def clusters(data: Stored, n: int, alphabet: int) -> np.ndarray:
    signs, count = data.number("B"), data.number("B")
    centres = data.array(count, 2).astype(np.int64)
    scales = np.repeat(data.array(-(-n // 256), 1).astype(np.int64), 256)[:n]
    symbols = data.symbols(n, alphabet)
    values = np.concatenate(([0], centres))[symbols] * 65_536 + (scales - 200) * 2**23
    values = np.where(symbols == 0, 0, np.clip(values, 1, 0x7F7FFFFF))
    if signs:
        values |= bits(data.array(-(-n // 8), 1), n).astype(np.int64) << 31
    return np.where(symbols == 0, 0, values).astype(np.uint64)
