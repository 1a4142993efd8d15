"""A disk that is really full: 0xA700, no litter, no false Success, and service again once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from node.index.instances import find_instance
from node.index.reindex import reindex
from tests.index_views import instances_of_study
from tests.receiving import STUDY, ct_image, receiver, send


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "tiny"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root and a kernel that lets it")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def large_image(megabytes: float) -> Dataset:
    image = ct_image()
    image.Rows, image.Columns = 512, int(megabytes * 1024)
    image.PixelData = bytes(image.Rows * image.Columns * 2)
    return image


def test_full_disk_answers_out_of_resources_and_serves_again(tiny_disk: Path) -> None:
    with receiver(tiny_disk) as to:
        first = large_image(1.5)
        assert send(to, first)[0].Status == 0x0000
        refused = [large_image(1.5) for _ in range(3)]
        statuses = send(to, *refused)
        assert [status.Status for status in statuses] == [0xA700] * 3
        assert "No space left" in statuses[0].ErrorComment
        assert list((to.store.directory / "incoming").iterdir()) == []
        assert all(find_instance(to.engine, image.SOPInstanceUID) is None for image in refused)
        to.stored[0].path.unlink()
        assert send(to, refused[0])[0].Status == 0x0000


def test_no_false_success_however_little_room_is_left(tiny_disk: Path) -> None:
    with receiver(tiny_disk) as to:
        images = [ct_image(seed=number) for number in range(60)]
        filler = tiny_disk / "filler"
        with filler.open("wb") as file:
            file.write(bytes(to.store.free_bytes() - 40_000))
        statuses = [status.Status for status in send(to, *images)]
        assert set(statuses) == {0x0000, 0xA700}
        accepted = [image.SOPInstanceUID for image, status in zip(images, statuses, strict=True) if status == 0x0000]
        assert [item.sop.sop_instance_uid for item in instances_of_study(to.engine, STUDY)] == sorted(accepted)
        filler.unlink()
        counts = reindex(to.store, to.engine)
        assert (counts.instances, counts.added, counts.damaged) == (len(accepted), 0, ())
        assert {status.Status for status in send(to, *images)} == {0x0000}
