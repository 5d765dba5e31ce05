"""Kubernetes quantities."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"

_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<suffix>m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_FACTORS = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    "Ki": Decimal(2**10),
    "M": Decimal(1000**2),
    "Mi": Decimal(2**20),
    "G": Decimal(1000**3),
    "Gi": Decimal(2**30),
    "T": Decimal(1000**4),
    "Ti": Decimal(2**40),
}


def from_wire(value: object) -> object:
    """A whole number as the quantity of so many units; anything else unchanged."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def parse_quantity(quantity: str) -> Decimal:
    """The number that a quantity stands for, `1Ki` being 1024; raises `ValueError` for what is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity[:80]!r} is not a quantity; write a number and a suffix, such as 512Mi")
    return Decimal(match["number"]) * _FACTORS[match["suffix"]]


def parse_bytes(quantity: str) -> int:
    """A quantity of bytes, rounded down; raises `ValueError`."""
    return int(parse_quantity(quantity))
