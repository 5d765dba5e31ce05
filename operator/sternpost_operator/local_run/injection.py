"""Faults to inject: what `--inject` says, and when each is due. Pure: `faults.py` does them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What happens."""

    KILL = "kill"
    """The node dies at once, and its memory with it."""
    SLOW = "slow"
    """Trainer processes of the node get only a share of the time from then on."""
    HANG = "hang"
    """A rank stops (SIGSTOP) and never goes on."""
    EXIT = "exit"
    """A rank is ended by a signal."""
    CRASH = "crash"
    """A part of Sternpost is ended with SIGKILL."""


class Part(StrEnum):
    """The parts of Sternpost that `crash` can end."""

    OPERATOR = "operator"
    MEMORY = "memory"
    LAUNCHER = "launcher"
    EAGLE_EYE = "eagle-eye"
    CHECKPOINT = "checkpoint"

    @property
    def in_pod(self) -> bool:
        """Whether each worker has its own."""
        return self not in (Part.OPERATOR, Part.MEMORY)


@dataclass(frozen=True)
class Injection:
    """One fault, done once."""

    id: str
    """The same for the same place in the same list of specs, also in a later run."""
    spec: str
    kind: FaultKind
    node: str | None = None
    worker: int | None = None
    rank: int | None = None
    """A rank of the whole job; alternative to `worker`, whose first rank is meant."""
    part: Part | None = None
    factor: float = 3
    """How many times slower."""
    signal: int = 9
    step: int | None = None
    """Due once all workers have completed this step."""
    after: float | None = None
    """Due so many seconds after the start of the job."""


class InjectionError(ValueError):
    """A spec that says nothing that could be done; the message names it and what is allowed."""


_WHEN = ("step", "after")
_TARGETS: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.KILL: ("node", "worker"),
    FaultKind.SLOW: ("node", "worker"),
    FaultKind.HANG: ("worker", "rank"),
    FaultKind.EXIT: ("worker", "rank"),
    FaultKind.CRASH: ("worker",),
}
_EXTRAS: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.KILL: (),
    FaultKind.SLOW: ("factor",),
    FaultKind.HANG: (),
    FaultKind.EXIT: ("signal",),
    FaultKind.CRASH: ("part",),
}
EXAMPLES: dict[FaultKind, str] = {
    FaultKind.KILL: "kill:node=node-1,step=40",
    FaultKind.SLOW: "slow:worker=1,step=80,factor=3",
    FaultKind.HANG: "hang:worker=0,step=120",
    FaultKind.EXIT: "exit:worker=1,step=30,signal=9",
    FaultKind.CRASH: "crash:part=launcher,worker=2,step=60",
}


def parse_all(specs: Sequence[str], nodes: Collection[str]) -> list[Injection]:
    """All injections of a command line, with ids; raises `InjectionError` for the first that is wrong."""
    seen: Counter[str] = Counter()
    injections = []
    for spec in specs:
        seen[spec] += 1
        injections.append(parse(spec, nodes, occurrence=seen[spec]))
    return injections


def parse(spec: str, nodes: Collection[str], *, occurrence: int = 1) -> Injection:
    """Read `KIND:key=value,key=value`; raises `InjectionError`."""
    kind_text, _, rest = spec.partition(":")
    try:
        kind = FaultKind(kind_text.strip())
    except ValueError:
        raise InjectionError(
            f"--inject {spec!r}: unknown kind {kind_text!r}; allowed are {_list(FaultKind)}, "
            f"for example {EXAMPLES[FaultKind.KILL]}"
        ) from None
    values = _pairs(spec, kind, rest)
    when = _exactly_one(spec, kind, values, _WHEN)
    if kind is FaultKind.CRASH:
        part = _part(spec, values)
    else:
        part = None
        _exactly_one(spec, kind, values, _TARGETS[kind])
    node = values.get("node")
    if node is not None and node not in nodes:
        raise InjectionError(f"--inject {spec!r}: there is no node {node!r}; the nodes are {_list(sorted(nodes))}")
    worker = _whole(spec, values, "worker", low=0, high=10_000)
    if part is not None:
        # There is only one operator and one memory service: a worker says nothing there.
        worker = (worker or 0) if part.in_pod else None
    return Injection(
        id=f"{spec}#{occurrence}",
        spec=spec,
        kind=kind,
        node=node,
        worker=worker,
        rank=_whole(spec, values, "rank", low=0, high=640_000),
        part=part,
        factor=_number(spec, values, "factor", low=1, high=100, default=3),
        signal=_whole(spec, values, "signal", low=1, high=64) or 9,
        step=_whole(spec, values, "step", low=0, high=2**53) if when == "step" else None,
        after=_number(spec, values, "after", low=0, high=31_536_000, default=0) if when == "after" else None,
    )


def due(injections: Sequence[Injection], done: Collection[str], *, step: int | None, seconds: float) -> list[Injection]:
    """Those whose time has come and that are not done, in the order in which they were given."""
    return [each for each in injections if each.id not in done and _is_due(each, step, seconds)]


def _is_due(injection: Injection, step: int | None, seconds: float) -> bool:
    if injection.step is not None:
        return step is not None and step >= injection.step
    return injection.after is not None and seconds >= injection.after


def _pairs(spec: str, kind: FaultKind, rest: str) -> dict[str, str]:
    allowed = (*_TARGETS[kind], *_EXTRAS[kind], *_WHEN)
    values: dict[str, str] = {}
    for pair in rest.split(",") if rest.strip() else []:
        key, equals, value = (text.strip() for text in pair.partition("="))
        if not equals or not value:
            raise InjectionError(f"--inject {spec!r}: {pair!r} is not key=value; {_usage(kind)}")
        if key not in allowed:
            raise InjectionError(
                f"--inject {spec!r}: {kind} has no {key!r}; allowed are {_list(allowed)}; {_usage(kind)}"
            )
        if key in values:
            raise InjectionError(f"--inject {spec!r}: {key!r} is given twice")
        values[key] = value
    return values


def _exactly_one(spec: str, kind: FaultKind, values: dict[str, str], names: tuple[str, ...]) -> str:
    given = [name for name in names if name in values]
    if len(given) != 1:
        problem = "gives none of" if not given else "gives more than one of"
        raise InjectionError(f"--inject {spec!r}: {problem} {_list(names)}; {_usage(kind)}")
    return given[0]


def _part(spec: str, values: dict[str, str]) -> Part:
    text = values.get("part")
    try:
        return Part(text or "")
    except ValueError:
        raise InjectionError(
            f"--inject {spec!r}: part={text or ''} is none of {_list(Part)}; {_usage(FaultKind.CRASH)}"
        ) from None


def _whole(spec: str, values: dict[str, str], name: str, *, low: int, high: int) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or not low <= int(text[:20]) <= high:
        raise InjectionError(f"--inject {spec!r}: {name}={text} is not a whole number from {low} to {high}")
    return int(text)


def _number(spec: str, values: dict[str, str], name: str, *, low: float, high: float, default: float) -> float:
    text = values.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise InjectionError(f"--inject {spec!r}: {name}={text} is not a number from {low:g} to {high:g}")
    return number


def _usage(kind: FaultKind) -> str:
    return f"for example {EXAMPLES[kind]}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(str(name) for name in names)
