"""How a chunk of a download travels: packed where that costs less time than it saves, else as it is.

Label maps are long runs of few values: LZ4 packs them to a twentieth in a third of the time that a plain chunk takes
over a loopback connection. Noise and floating point gain nothing, and trying would cost more than sending. A look at a
sample of the chunk, a hundredth of it, tells them apart.
"""

import zlib
from collections.abc import Callable, Collection
from types import MappingProxyType

import lz4.block

LZ4, DEFLATE = "lz4", "deflate"
_PIECES, _PIECE = 4, 4096
_SAMPLE_GAIN, _GAIN = 4, 2
"""How many times smaller the sample must become for the chunk to be tried, and the chunk to be sent packed."""
_FASTEST = 1
_PACKERS: MappingProxyType[str, Callable[[bytes | memoryview], bytes]] = MappingProxyType(
    {
        LZ4: lambda part: lz4.block.compress(part, store_size=False),
        DEFLATE: lambda part: zlib.compress(part, _FASTEST),
    }
)
"""The fastest first. Deflate takes seven times as long: for clients that read nothing else."""


def encoded(part: memoryview, readable: Collection[str]) -> tuple[str, bytes | memoryview]:
    """Give the encoding of a chunk, "" for none, and its bytes, in one of the encodings that the client can read."""
    for name, pack in _PACKERS.items():
        if name in readable:
            return _tried(part, name, pack)
    return "", part


def _tried(part: memoryview, name: str, pack: Callable[[bytes | memoryview], bytes]) -> tuple[str, bytes | memoryview]:
    sample = _sample(part)
    if len(pack(sample)) * _SAMPLE_GAIN > len(sample):
        return "", part
    packed = pack(part)
    return (name, packed) if len(packed) * _GAIN <= part.nbytes else ("", part)


def _sample(part: memoryview) -> bytes | memoryview:
    """Take pieces from all over the chunk; all of it where it is small."""
    if part.nbytes <= _PIECES * _PIECE:
        return part
    step = (part.nbytes - _PIECE) // (_PIECES - 1)
    return b"".join(part[start : start + _PIECE] for start in range(0, step * _PIECES, step))
