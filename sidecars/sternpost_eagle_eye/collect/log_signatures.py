"""Lines of a trainer's or a machine's log that say something known."""

from __future__ import annotations

import re

from sternpost_eagle_eye.vector import LogSign, LogSignature

MAX_LINE = 4096
_XID = re.compile(r"\bXid\b\s{0,4}(?:\([^)]{0,64}\))?\s{0,4}[:=]\s{0,4}(\d{1,4})", re.IGNORECASE)
_EXIT = re.compile(r"\bexit(?:ed|code| code)[^-\d]{0,24}(-?\d{1,3})\b", re.IGNORECASE)
_PATTERNS: tuple[tuple[LogSignature, re.Pattern[str]], ...] = (
    ("cuda-oom", re.compile(r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError: CUDA|torch\.OutOfMemoryError")),
    (
        "oom",
        re.compile(
            r"\bOut of memory: Kill|oom-kill\b|\bOOMKilled\b|invoked oom-killer|Memory cgroup out of memory", re.IGNORECASE
        ),
    ),
    ("gpu-lost", re.compile(r"GPU has fallen off the bus|GPU is lost|No CUDA-capable device|device lost", re.IGNORECASE)),
    ("ecc", re.compile(r"uncorrectable (?:double bit )?ECC|double.bit ECC|CUDA error: uncorrectable", re.IGNORECASE)),
    ("no-space", re.compile(r"No space left on device|\bENOSPC\b|disk quota exceeded", re.IGNORECASE)),
    ("io-error", re.compile(r"Input/output error|\bEIO\b|I/O error, dev|Read-only file system", re.IGNORECASE)),
    (
        "nccl-timeout",
        re.compile(r"Watchdog caught collective operation timeout|NCCL.{0,80}tim(?:ed? ?out|eout)|collective.{0,40}timeout",
                   re.IGNORECASE),
    ),
    ("nccl-error", re.compile(r"NCCL (?:error|WARN)|ncclSystemError|ncclRemoteError|ncclInternalError|ncclUnhandledCudaError")),
    ("cuda-error", re.compile(r"CUDA error|cudaError\w+|CUBLAS_STATUS|device-side assert")),
    ("nan", re.compile(r"\b(?:loss|grad(?:ient)?(?:[ _]norm)?)\b.{0,24}\b(?:nan|inf)\b", re.IGNORECASE)),
    (
        "crash",
        re.compile(
            r"Segmentation fault|SIG(?:SEGV|KILL|ABRT|BUS)\b|core dumped|ChildFailedError|Fatal Python error"
            r"|process (?:was )?(?:killed|terminated)",
            re.IGNORECASE,
        ),
    ),
)  # fmt: skip


def signs_of(line: str) -> tuple[LogSign, ...]:
    """At most one sign; empty for an ordinary line."""
    line = line[:MAX_LINE]
    if found := _XID.search(line):
        return (LogSign(signature="xid", code=int(found[1]), line=line[:300]),)
    for signature, pattern in _PATTERNS:
        if pattern.search(line):
            return (LogSign(signature=signature, line=line[:300]),)
    if (found := _EXIT.search(line)) and int(found[1]) != 0:
        return (LogSign(signature="crash", code=int(found[1]), line=line[:300]),)
    return ()
