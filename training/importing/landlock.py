"""Landlock: a process gives up the file system but for a list of paths (Linux 5.13 and newer, landlock(7))."""

import ctypes
import os
import stat
from collections.abc import Sequence

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_DIR
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""By ABI version: all rights over files that the kernel can take away; IOCTL_DEV came with version 5."""
_EXECUTE = 1
_TCP = 0b11
_TCP_SINCE = 4


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine_files(libc: ctypes.CDLL, readable: Sequence[str], writable: Sequence[str]) -> str:
    """Take away every file but those beneath the paths, running programs, and TCP where the kernel can.

    Args:
        libc: loaded with `use_errno`; the process must have set no_new_privs.
        readable: files and folders that may be read.
        writable: files and folders that may be read, written and, in folders, made and removed.

    Returns:
        Why the kernel does not do so; empty where it does.
    """
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version < 1:
        return f"landlock: {os.strerror(ctypes.get_errno())}"
    rights = _RIGHTS[max(known for known in _RIGHTS if known <= version)]
    rules = _Ruleset(rights, _TCP if version >= _TCP_SINCE else 0)
    size = ctypes.sizeof(rules) if version >= _TCP_SINCE else ctypes.sizeof(ctypes.c_uint64)
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return f"landlock: {os.strerror(ctypes.get_errno())}"
    try:
        for paths, allowed in ((readable, _READ), (writable, rights & ~_EXECUTE)):
            for path in paths:
                _allow(libc, ruleset, path, allowed)
        if libc.syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) != 0:
            return f"landlock: {os.strerror(ctypes.get_errno())}"
    except OSError as error:
        return f"landlock: {error.filename}: {error.strerror}"
    finally:
        os.close(ruleset)
    return ""


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, allowed: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        beneath = _Beneath(allowed if is_folder else allowed & _OF_FILES, descriptor)
        code = libc.syscall(
            _ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(beneath), ctypes.c_uint32(0)
        )
        if code != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(descriptor)
