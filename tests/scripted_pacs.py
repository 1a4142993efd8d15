"""Storage SCPs that behave as told: each fault that a PACS can show to a sender."""

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from node.domain.evidence import EvidenceObject
from node.domain.instances import SopReference
from node.settings import Destination

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
PLAIN = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))


@dataclass
class Pacs:
    """What reached a scripted PACS, and where it listens."""

    port: int = 0
    stored: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(SOP Instance UID, transfer syntax, encoded data set) in order of arrival."""
    associations: int = 0

    def destination(self, **changes: object) -> Destination:
        values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": self.port, "timeout_s": 5.0}
        return Destination.model_validate(values | changes)


@contextmanager
def scripted_pacs(
    answer: Callable[[evt.Event], int | Dataset] = lambda _event: 0x0000,
    *,
    sop_classes: Sequence[str] = (SEGMENTATION, COMPREHENSIVE_3D_SR),
    syntaxes: Sequence[str] = PLAIN,
    port: int = 0,
) -> Iterator[Pacs]:
    """Run a storage SCP: `answer` gives the status of each C-STORE."""
    pacs = Pacs()

    def requested(_event: evt.Event) -> None:
        pacs.associations += 1

    def stored(event: evt.Event) -> int | Dataset:
        status = answer(event)
        code = status if isinstance(status, int) else status.Status
        if code == 0 or code & 0xF000 == 0xB000:
            request = event.request
            content = request.DataSet.getvalue()
            pacs.stored.append((request.AffectedSOPInstanceUID, event.context.transfer_syntax, content))
        return status

    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")
    for sop_class in sop_classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    handlers = [(evt.EVT_REQUESTED, requested), (evt.EVT_C_STORE, stored), (evt.EVT_C_ECHO, lambda _event: 0x0000)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[Pacs]:
    """Run a TCP server below DICOM: `serve` gets each connection in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Pacs(port=listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)
        for connection in connections:
            connection.close()


def rejecting_pacs(result: int, source: int, reason: int) -> AbstractContextManager[Pacs]:
    """Run an acceptor that answers every A-ASSOCIATE-RQ with this A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    def reject(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason)))
        # Closing with bytes unread would take the rejection back with a reset. The sender may have gone by now.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(4096):
                pass

    return raw_server(reject)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def evidence_files(
    directory: Path, kinds: Sequence[str] = ("SEG", "SR"), *, pixels: int = 512, prefix: str = "2.25.77"
) -> list[tuple[EvidenceObject, Path]]:
    """Write small Part 10 objects as they lie in an outbox."""
    return [_evidence_file(directory, kind, f"{prefix}.{number}", pixels) for number, kind in enumerate(kinds, 1)]


def _evidence_file(directory: Path, kind: str, uid: str, pixels: int) -> tuple[EvidenceObject, Path]:
    sop_class = {"SEG": SEGMENTATION, "SR": COMPREHENSIVE_3D_SR}.get(kind, kind)
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = sop_class, uid
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "2.25.1", "2.25.2"
    data_set.SeriesDescription = "AI result, research use"
    data_set.Rows, data_set.Columns, data_set.BitsAllocated, data_set.PixelRepresentation = pixels // 256, 256, 8, 0
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "126000", "DCM", "Imaging Measurement Report"
    data_set.ConceptNameCodeSequence = [item]
    data_set.add_new(0x00091001, "LO", "private")
    data_set.add_new(0x00090010, "LO", "HILUM TEST")
    data_set.PixelData = bytes(range(256)) * (pixels // 256)
    data_set["PixelData"].VR = "OB"
    data_set.ensure_file_meta()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = directory / f"{uid}.dcm"
    data_set.save_as(path, enforce_file_format=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    evidence_kind = "SEG" if kind == "SEG" else "SR"
    sop = SopReference(sop_class, uid)
    return EvidenceObject(evidence_kind, sop, "2.25.2", str(ExplicitVRLittleEndian), path.name, digest), path


def data_set_bytes(path: Path) -> bytes:
    """Return the encoded data set of a Part 10 file as it lies there, without preamble and file meta."""
    content = path.read_bytes()
    meta_length = int.from_bytes(content[140:144], "little")
    return content[144 + meta_length :]


def decoded(content: bytes, transfer_syntax: str) -> Dataset:
    """Decode an encoded data set."""
    implicit = transfer_syntax == ImplicitVRLittleEndian
    return read_dataset(BytesIO(content), is_implicit_VR=implicit, is_little_endian=True)


def values_of(data_set: Dataset) -> dict[str, object]:
    """Return what a data set says, whatever its encoding; private values as bytes."""
    return {f"{item.tag}": item.value for item in data_set if not item.tag.is_private}
