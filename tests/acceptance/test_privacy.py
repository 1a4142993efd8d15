"""Where a patient's data may be and where not: a study full of unique words is followed through a node."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pydicom
import pytest
from pydicom.dataset import FileDataset

from node.testing.modality import Modality
from node.testing.pacs import StandInPacs
from node.testing.phantom import PhantomTruth
from tests import ugly_studies
from tests.inference_service import RunningService
from tests.node_process import NodeProcess

KEYWORDS = (
    "PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientNames", "PatientBirthName", "PatientAddress",
    "PatientComments", "PatientMotherBirthName", "PatientTelephoneNumbers", "AdditionalPatientHistory", "Occupation",
    "MedicalRecordLocator", "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName",
    "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PhysiciansOfRecord", "InstitutionName",
    "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "RequestedProcedureDescription",
    "ImageComments", "AdmissionID", "DeviceSerialNumber",
)  # fmt: skip
CANARIES = {keyword: f"KANARI{number:02d}X" for number, keyword in enumerate(KEYWORDS)}
# Values that cannot be, so that whoever reads them strictly is tempted to quote them.
ODD_CANARIES = {"PatientBirthDate": "KANARI80X", "PatientAge": "KANARI81X", "PatientWeight": "KANARI82X"}
PRIVATE_CANARY = "KANARI90X"
WORD = "kanari"
COPIED = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName")


class RecordingProxy:
    """Hands every call on as bytes and keeps the requests with their metadata."""

    def __init__(self, target: str) -> None:
        self.requests: list[bytes] = []
        size = [("grpc.max_send_message_length", 1 << 30), ("grpc.max_receive_message_length", 1 << 30)]
        self._channel = grpc.insecure_channel(target, options=size)
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self], options=size)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        call = self._channel.unary_unary(details.method)

        def forward(request: bytes, context: grpc.ServicerContext) -> Any:
            self.requests.append(request + repr(details.invocation_metadata).encode())
            return call(request, timeout=context.time_remaining())

        return grpc.unary_unary_rpc_method_handler(forward)

    def close(self) -> None:
        self._server.stop(None).wait()
        self._channel.close()


@pytest.fixture
def proxy(bright_service: RunningService) -> Iterator[RecordingProxy]:
    running = RecordingProxy(bright_service.tcp)
    yield running
    running.close()


def mark(dataset: FileDataset, _index: int = 0) -> None:
    """Put a word of its own into every attribute that says who, where or why."""
    for keyword, canary in CANARIES.items():
        setattr(dataset, keyword, canary)
    with pydicom.config.disable_value_validation():
        for keyword, canary in ODD_CANARIES.items():
            dataset[keyword] = pydicom.DataElement(keyword, "LO", canary)
            dataset[keyword].VR = pydicom.datadict.dictionary_VR(keyword)
    dataset.private_block(0x0019, "HILUM TESTS", create=True).add_new(0x01, "LO", PRIVATE_CANARY)


def one_slice(dataset: FileDataset, index: int) -> None:
    mark(dataset)
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.InstanceNumber = index


def other_patient(dataset: FileDataset, _index: int) -> None:
    mark(dataset)
    dataset.PatientID, dataset.PatientName = "KANARI95X", "KANARI96X"


def written(source: Path, target: Path, change: Callable[[FileDataset, int], None], *, new_uids: bool = True) -> Path:
    target.mkdir()
    for index, path in enumerate(sorted(source.iterdir())):
        dataset = pydicom.dcmread(path)
        if new_uids:
            ugly_studies.renew_uids(dataset, target.name)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        change(dataset, index)
        with pydicom.config.disable_value_validation():
            dataset.save_as(target / path.name)
    return target


def uids_of(folder: Path) -> set[str]:
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    return {str(image[name].value) for image in images for name in names}


def said_by(node: NodeProcess, *command: str) -> str:
    full = [sys.executable, "-m", "node.cli", *command, "--settings", str(node.settings_file)]
    done = subprocess.run(full, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore")  # of the values that are wrong on purpose
def test_patient_data_is_in_the_results_and_nowhere_else(
    tmp_path: Path,
    bright_models: Path,
    proxy: RecordingProxy,
    pacs: StandInPacs,
    small_study: Callable[[int], PhantomTruth],
) -> None:
    plain = small_study(1).files[0].parent
    whole = written(plain, tmp_path / "whole", mark)
    refused = written(plain, tmp_path / "refused", one_slice)
    conflict = written(whole, tmp_path / "conflict", other_patient, new_uids=False)
    node = NodeProcess(
        tmp_path / "node",
        proxy.endpoint,
        models=bright_models,
        destinations=(pacs.destination(),),
        changes={"log": {"level": "debug"}},
    )
    with node:
        modality = Modality("HILUM", "127.0.0.1", node.port)
        for folder in (whole, refused):
            assert not modality.send(folder).of("FAILED")
        assert modality.send(conflict).of("FAILED")
        states = node.wait_for_end(2)
        assert sorted(states.values()) == ["DONE", "REFUSED"]
        tellings = {name: said_by(node, *name.split()) for name in ("studies", *(f"study {uid}" for uid in states))}
    tellings["log"] = node.log()
    tellings["file names"] = "\n".join(str(path.relative_to(node.state)) for path in node.state.rglob("*"))
    tellings["databases"] = "\n".join(path.read_bytes().decode("latin-1") for path in node.state.glob("*.sqlite*"))

    assert '"prediction_received"' in tellings["log"]
    stored = [path for path in (node.state / "store").rglob("*") if path.is_file()]
    assert sum(CANARIES["PatientID"].encode() in path.read_bytes() for path in stored) >= 24  # what came is kept whole
    for name, text in tellings.items():
        at = text.lower().find(WORD)
        assert at < 0, f"{name}: ...{text[max(0, at - 200) : at + 60]}..."
    assert any(len(request) > 12 * 64 * 64 * 2 for request in proxy.requests)
    uids = uids_of(whole) | uids_of(refused)
    for request in proxy.requests:
        assert WORD.encode() not in request.lower()
        assert [uid for uid in uids if uid.encode() in request] == []

    assert len(pacs.objects) == 2
    for item in pacs.objects:
        result = pydicom.dcmread(item.path)
        assert {keyword: str(result[keyword].value) for keyword in COPIED} == {
            keyword: CANARIES[keyword] for keyword in COPIED
        }
