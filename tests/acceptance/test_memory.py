"""Four studies at once: the node's memory stays under the bound that docs/limits.md states."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest

from node.testing.modality import Modality, SendReport
from node.testing.pacs import StandInPacs
from node.testing.phantom import write_phantom
from tests.inference_service import RunningService
from tests.node_process import NodeProcess

STUDIES, SLICES, SIZE = 4, 120, 512
VOLUME_MB = SLICES * SIZE * SIZE * 2 / 2**20
IDLE_MB = 400
"""More than a node takes before the first study."""
VOLUMES_PER_STUDY = 11
"""Memory of one study at work, in volumes of its voxels at 2 bytes: docs/limits.md says what takes it."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same chest as four studies: other UIDs, so that nothing is taken for a resend."""
    folder = tmp_path_factory.mktemp("four")
    source = write_phantom(folder / "0", slices=SLICES, size=SIZE).files
    for number in range(1, STUDIES):
        (folder / f"{number}").mkdir()
    for path in source:
        image = pydicom.dcmread(path)
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
        uids = {name: str(image[name].value) for name in names}
        for number in range(1, STUDIES):
            for name, uid in uids.items():
                setattr(image, name, f"{uid}.{number}")
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.save_as(folder / f"{number}" / path.name)
    return [folder / f"{number}" for number in range(STUDIES)]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_four_studies_at_once_stay_under_the_stated_bound(
    concurrency: int,
    tmp_path: Path,
    studies: list[Path],
    bright_models: Path,
    bright_service: RunningService,
    pacs: StandInPacs,
) -> None:
    node = NodeProcess(
        tmp_path / "node",
        bright_service.tcp,
        models=bright_models,
        destinations=(pacs.destination(),),
        changes={"processing": {"concurrency": concurrency}},
    )
    with node:
        idle = node.rss_bytes() / 2**20

        def send(folder: Path) -> SendReport:
            return Modality("HILUM", "127.0.0.1", node.port).send(folder)

        with ThreadPoolExecutor(STUDIES) as senders:
            reports = list(senders.map(send, studies))
        received = node.rss_bytes() / 2**20
        assert [len(report.of("SENT")) for report in reports] == [SLICES] * STUDIES
        states = node.wait_for_end(STUDIES, timeout_s=400)
        peak = node.rss_bytes() / 2**20
    assert set(states.values()) == {"DONE"}
    assert len(states) == STUDIES
    bound = IDLE_MB + concurrency * VOLUMES_PER_STUDY * VOLUME_MB
    print(
        f"concurrency {concurrency}: idle {idle:.0f} MiB, after reception {received:.0f} MiB, peak {peak:.0f} MiB, "
        f"bound {bound:.0f} MiB; one volume is {VOLUME_MB:.0f} MiB"
    )
    assert received - idle < 50  # what arrives is not kept in memory
    assert idle < IDLE_MB
    assert peak < bound
