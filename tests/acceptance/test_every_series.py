"""Every CT, MR and PT series of the shared data through one node: a result that others read, or a reason."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from inference.settings import BUNDLED_MODELS
from node.index.engine import open_index
from node.index.history import RunPart, StudyHistory
from node.index.instances import QuarantinedInstance, quarantined
from node.testing.modality import Modality, SendReport
from node.testing.pacs import StandInPacs
from tests import validators
from tests.bundles import THRESHOLD_NAME, threshold_bundle
from tests.inference_service import running_service
from tests.node_process import NodeProcess

# The data sets are odd on purpose, and pydicom warns of it.
pytestmark = [pytest.mark.needs_program("dsrdump"), pytest.mark.filterwarnings("ignore")]
MODALITIES = ("CT", "MR", "PT")
ARCHIVES = (
    "ct_abdomen_totalseg20", "ct_head_philips28", "dcm_qa_enh", "dcm_qa_ts", "dcmqi_seg_sr", "highdicom_test_files",
    "mr_brain_PGBM-002_HippoCrop", "mr_brain_PGBM-003", "pet_suyash", "pydicom_data", "wg04_compressed",
)  # fmt: skip
# A model takes one series of a study, so the series of this one are sent as studies of their own as well.
OF_SEVERAL_SERIES = "mr_brain_PGBM-003"
BRAIN, CROP = "1.3.6.1.4.1.14519.5.2.1.4429.7055.", "1.2.826.0.1.3680043.8.498."
WG04, DCMQI = "1.3.6.1.4.1.5962.1.3.", "1.2.826.0.1.3680043.2.1125.1."
NOTHING_BRIGHT = "1.2.392.200103.20080913.113635.1.2009.6.22.21.43.10.23430.1"
"""Padding of -2000 widens its deviation so far that 4 lone voxels lie above the threshold: a report, no segments."""
TAKEN = (
    NOTHING_BRIGHT,
    "1.3.46.670589.33.1.6002432791750815306.26862469513794233732",
    f"{DCMQI}31406211013692525450623069050794718",
    f"{DCMQI}9881642883347102869241902700569139",
    f"{CROP}10112548596522579645160189153146185462",
    f"{CROP}26269410813686558956046182253949569533",
    *(f"{BRAIN}{end}" for end in (
        "105521800202421035670670758706", "250698293053013179878447218670",
        "170099978014836890431312652906", "149455479236394071679725178532",
    )),
)  # fmt: skip
REFUSED = {
    "frames": (
        "1.3.12.2.1107.5.2.50.175689.2018102208361828588232823.0.0.0",
        "1.3.46.670589.11.17240.5.0.8932.2018052615250908935",
        "1.3.6.1.4.1.5962.99.1.3840.1409.1519964081918.1.3.3456.3456",
        "1.3.6.1.4.1.5962.99.1.3840.1781.1519964048862.1.3.3456.3456",
        "1.3.6.1.4.1.5962.1.3.10.3.1166562673.14401",
        "1.2.826.0.1.3680043.2.1143.3712364435022872412969836992152438492",
    ),
    "lie at one position": (
        "1.3.12.2.1107.5.2.32.35131.2014031012481958900586557.0.0.0",
        *(f"{WG04}{number}.1.20040826185059.5457" for number in (1, 2, 5, 7)),
    ),
    "number of slices is 1;": (
        "1.3.6.1.4.1.14519.5.2.1.3671.7001.261913302903961139526297576821",
        "1.3.6.1.4.1.14519.5.2.1.7009.2401.156320467167446933671661793694",
        "1.3.6.1.4.1.14519.5.2.1.7009.2401.191964947775618932225259619313",
        "1.3.6.1.4.1.14519.5.2.1.9823.1001.115805672672216488921886375902",
        "1.3.12.2.1107.5.2.30.25641.30010005113009191059300000190",
        f"{DCMQI}68878959984837726447916707551399667",
        f"{WG04}1.1.20040119072730.12322",
        *(f"{WG04}{number}.1.20031208063649.855" for number in (1, 2, 4, 7)),
    ),
    "Bits Stored (0028,0101) differs": (
        "1.2.276.0.7230010.3.1.3.296485376.1.1521713419.1802493",
        f"{WG04}4.1.20040826185059.5457",
    ),
}  # fmt: skip
EXPECTED = {uid: reason for reason, uids in REFUSED.items() for uid in uids} | dict.fromkeys(TAKEN, "")
AT_THE_DOOR = {"", "dbf60361338b6cb0d8add6f6ea34276642da945f02b34613f09188618e7d4d7b"}
"""Series whose UIDs are empty or no UIDs: their instances are refused as they come."""


@dataclass(frozen=True)
class Outcome:
    sent: dict[str, SendReport]
    series: set[str]
    histories: tuple[StudyHistory, ...]
    set_aside: tuple[QuarantinedInstance, ...]
    received: dict[str, Path]
    log: str

    def runs(self, model: str) -> list[tuple[StudyHistory, RunPart]]:
        return [(item, run) for item in self.histories for run in item.runs if run.model.split()[0] == model]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_data: Callable[[str], Path]) -> Outcome:
    folder = tmp_path_factory.mktemp("every")
    models = folder / "models"
    shutil.copytree(BUNDLED_MODELS / "lung_nodule", models / "lung_nodule")
    threshold_bundle(models, modality=MODALITIES)
    sources = {name: shared_data(name) for name in ARCHIVES}
    sources["series apart"] = one_study_per_series(sources[OF_SEVERAL_SERIES], folder / "apart")
    series = {uid for path in sources.values() for uid in series_in(path)}
    with running_service(models) as service, StandInPacs(folder / "pacs") as pacs:
        node = NodeProcess(folder / "node", service.tcp, models=models, destinations=(pacs.destination(),))
        with node:
            modality = Modality("HILUM", "127.0.0.1", node.port)
            sent = {name: modality.send(path) for name, path in sources.items()}
            states = node.wait_for_end(len(TAKEN), timeout_s=400)
        histories = [node.history(uid) for uid in states]
        engine = open_index(node.state / "index.sqlite", store_directory=node.state / "store")
        set_aside = quarantined(engine)
        engine.dispose()
        received = {item.sop_instance_uid: item.path for item in pacs.objects}
    return Outcome(sent, series, tuple(item for item in histories if item), set_aside, received, node.log())


def one_study_per_series(source: Path, target: Path) -> Path:
    target.mkdir()
    for number, path in enumerate(sorted(path for path in source.rglob("*.dcm"))):
        image = pydicom.dcmread(path)
        image.StudyInstanceUID = f"2.25.{int(str(image.SeriesInstanceUID).rpartition('.')[2])}"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.StudyInstanceUID}.{number}"
        image.save_as(target / f"{number}.dcm")
    return target


def series_in(folder: Path) -> set[str]:
    found = set()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        try:
            image = pydicom.dcmread(path, specific_tags=["Modality", "SeriesInstanceUID"])
        except InvalidDicomError:
            continue
        if image.get("Modality") in MODALITIES:
            found.add(str(image.SeriesInstanceUID))
    return found


def test_the_table_names_every_series_of_the_data(outcome: Outcome) -> None:
    assert outcome.series == EXPECTED.keys() | AT_THE_DOOR


def test_no_study_stays_unfinished_and_nothing_crashes(outcome: Outcome) -> None:
    assert {item.state for item in outcome.histories} == {"DONE", "REFUSED"}
    assert all(len(item.runs) >= 2 for item in outcome.histories)
    assert "Traceback" not in outcome.log


def test_the_lung_model_refuses_each_series_with_a_stored_reason(outcome: Outcome) -> None:
    runs = outcome.runs("lung_nodule")
    assert {run.state for _, run in runs} == {"REFUSED"}
    reasons = {verdict.series_uid: verdict.reason for _, run in runs for verdict in run.verdicts}
    assert EXPECTED.keys() <= reasons.keys()
    for uid in EXPECTED:
        assert "the model takes" in reasons[uid], reasons[uid]


def test_the_threshold_model_takes_or_refuses_each_series_as_expected(outcome: Outcome) -> None:
    verdicts: dict[str, list[tuple[bool, str]]] = {}
    for _, run in outcome.runs(THRESHOLD_NAME):
        for verdict in run.verdicts:
            verdicts.setdefault(verdict.series_uid, []).append((verdict.taken, verdict.reason))
    for uid, expected in EXPECTED.items():
        taken = any(taken for taken, _ in verdicts[uid])
        assert taken == (expected == ""), (uid, verdicts[uid])
        assert expected in verdicts[uid][-1][1], uid
        print(f"{uid}: {'SEG and SR' if taken else verdicts[uid][-1][1]}")


def test_each_result_passes_the_validators(outcome: Outcome) -> None:
    done = [(item, run) for item, run in outcome.runs(THRESHOLD_NAME) if run.state == "EVIDENCE"]
    assert len(done) == len(TAKEN) + 1  # the crop once more, as the best of its whole study
    for history, run in done:
        parts = {part.kind: outcome.received[part.sop_instance_uid] for part in history.objects}
        taken = next(verdict.series_uid for verdict in run.verdicts if verdict.taken)
        assert parts.keys() == ({"SR"} if taken == NOTHING_BRIGHT else {"SEG", "SR"})
        for path in parts.values():
            assert validators.iod_errors(path) == []
        assert ("Measurement Group" in validators.dumped_report(parts["SR"])) == ("SEG" in parts)
    assert len(outcome.received) == 2 * len(done) - 1


def test_images_with_empty_uids_end_in_a_refusal_one_can_read(outcome: Outcome) -> None:
    reports = outcome.sent["ct_abdomen_totalseg20"].of("FAILED")
    assert len(reports) == 20
    assert {report.status for report in reports} == {0xA900}
    assert all("SOP Class UID is empty in the data set" in report.reason for report in reports)
    kept = [item for item in outcome.set_aside if "SOP Class UID is empty" in item.reason]
    assert len(kept) == 20
