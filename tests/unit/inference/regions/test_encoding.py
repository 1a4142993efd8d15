"""Chunks of downloads: label maps are packed, noise is not, and what is packed comes back as it was."""

import zlib

import lz4.block
import numpy as np
import pytest

from inference.regions import encoding
from inference.regions.encoding import encoded

SIZE = 1 << 20
LABELS = np.repeat(np.random.default_rng(1).integers(0, 12, SIZE // 64, np.uint8), 64).tobytes()
NOISE = np.random.default_rng(2).bytes(SIZE)
REALS = np.random.default_rng(3).normal(0, 1, SIZE // 4).astype(np.float32).tobytes()
BOTH = ["deflate", "lz4"]


def unpacked(name: str, content: bytes | memoryview, size: int) -> bytes:
    if name == "lz4":
        return lz4.block.decompress(content, uncompressed_size=size)
    return zlib.decompress(content) if name else bytes(content)


@pytest.mark.parametrize(
    ("readable", "expected"), [(BOTH, "lz4"), (["deflate"], "deflate"), (["snappy"], ""), ([], "")]
)
def test_the_fastest_encoding_that_the_client_reads_is_chosen(readable: list[str], expected: str) -> None:
    name, content = encoded(memoryview(LABELS), readable)
    assert name == expected
    assert unpacked(name, content, SIZE) == LABELS
    if name:
        assert len(content) < SIZE / 10


@pytest.mark.parametrize("readable", [BOTH, ["deflate"]])
@pytest.mark.parametrize("plain", [NOISE, REALS, NOISE[: SIZE // 2] + bytes(SIZE // 2)], ids=["noise", "reals", "half"])
def test_what_gains_little_travels_as_it_is(plain: bytes, readable: list[str]) -> None:
    view = memoryview(plain)
    name, content = encoded(view, readable)
    assert name == ""
    assert content is view


def test_only_a_sample_of_noise_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    compress = lz4.block.compress
    monkeypatch.setattr(
        encoding.lz4.block, "compress", lambda part, **how: looked.append(len(part)) or compress(part, **how)
    )
    encoded(memoryview(NOISE), BOTH)
    assert sum(looked) <= SIZE / 50


def test_noise_between_the_samples_is_found_before_it_is_sent() -> None:
    plain = bytearray(NOISE)
    step = (SIZE - 4096) // 3
    for start in range(0, SIZE, step):
        plain[start : start + 4096] = bytes(len(plain[start : start + 4096]))
    assert encoded(memoryview(plain), BOTH)[0] == ""


@pytest.mark.parametrize("size", [1, 2, 4095, 4096, 16384, 16385, 20000, SIZE - 1])
def test_any_size_comes_back(size: int) -> None:
    for plain in (LABELS[:size], NOISE[:size], bytes(size)):
        name, content = encoded(memoryview(plain), BOTH)
        assert unpacked(name, content, size) == plain
        assert len(content) <= size
