"""What the child may do: no network, little of the file system, bounded memory and time. Linux only.

Run before anything else in the process: a user namespace wants a process of one thread.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.importing.landlock import confine_files

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_OPEN_FILES = 512
_FILE_BYTES_MOST = 4 << 30
_READABLE = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/sys/devices/system", "/sys/fs/cgroup")
_READABLE_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")
_READABLE_STATE = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/proc/sys/kernel")
_WRITABLE = ("/dev/null", "/proc/self")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may use."""

    memory_bytes: int
    """Of its address space."""
    seconds: int
    """Of processor time."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the kernel granted; the reason is empty where it did."""

    network_refusal: str
    files_refusal: str


def isolate(work: Path, limits: Limits, parent_pid: int) -> Isolation:
    """Give up network, files and resources for good.

    Args:
        work: the only folder that may be written to, and that may be read beside Python and its libraries.
        limits: of memory and processor time.
        parent_pid: the process ends with it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit_resources(limits)
    network_refusal = _leave_network(libc)
    return Isolation(network_refusal, confine_files(libc, readable_paths(), (str(work), *_WRITABLE)))


def readable_paths() -> Sequence[str]:
    """Name what Python, its libraries and TensorFlow read; only what is there."""
    ours = Path(__file__).resolve().parents[2]
    wanted = (sys.prefix, sys.base_prefix, str(ours), *filter(None, sys.path))
    return [path for path in (*wanted, *_READABLE, *_READABLE_DEVICES, *_READABLE_STATE) if Path(path).exists()]


def _limit_resources(limits: Limits) -> None:
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_FSIZE, _FILE_BYTES_MOST),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))


def _leave_network(libc: ctypes.CDLL) -> str:
    """Move to a network namespace that has no interface but a loopback that is down; say why that is refused."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        _keep_identity(user, group)
    elif libc.unshare(_CLONE_NEWNET) != 0:
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    return "" if _is_cut_off() else "the new network namespace still reaches an address"


def _keep_identity(user: int, group: int) -> None:
    """Map the own user and group into the new namespace, so that files keep their owner."""
    for place, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path("/proc/self", place).write_text(line, encoding="ascii")
        except OSError:
            return  # files still belong to the same user; only their names do not show


def _is_cut_off() -> bool:
    """Tell whether no packet can be sent: connecting a datagram socket needs a route and sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) != 0
