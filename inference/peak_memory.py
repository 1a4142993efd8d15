"""The peak of this process's memory, counted anew when asked (Linux)."""

import ctypes
from pathlib import Path


def reset_peak_bytes() -> int:
    """Give freed memory back, start the process's peak anew (proc(5), clear_refs), and give what is resident now."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """Give the most bytes that were resident since the peak was started anew."""
    return _status_bytes("VmHWM")


def resident_bytes(pid: int) -> int:
    """Give the bytes that another process of the same user holds; 0 where it is gone."""
    try:
        return _status_bytes("VmRSS", pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _status_bytes(key: str, pid: int | str = "self") -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
