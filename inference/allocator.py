"""What the C library keeps of freed memory, fixed at the start instead of left to chance.

glibc maps each block above a threshold afresh and gives free memory back above another. Both rise as blocks are freed,
up to 32 and 64 MiB: a service that has run a large model has them there. Before that every megabyte that gRPC
receives costs 256 page faults, a fifth of what an upload costs the service (docs/decisions/0011-remote-transfers.md).
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""malloc.h of glibc; mallopt(3)."""
_MAPPED_FROM = 32 << 20
"""The highest that glibc itself goes to, DEFAULT_MMAP_THRESHOLD_MAX on 64 bits."""


def give_freed_memory_back() -> None:
    """Give the pages of freed blocks back to the system, those too that are kept; nothing under another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_freed_memory() -> bool:
    """Set both thresholds to where glibc would end; tell whether that was done.

    Nothing is done under another C library, or where the environment of the process says how to allocate.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)) and bool(mallopt(_M_TRIM_THRESHOLD, 2 * _MAPPED_FROM))
