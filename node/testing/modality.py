"""A simulated modality: sends the DICOM files of a folder by C-STORE, over one or many associations.

File bytes go out as they lie, whatever is wrong inside: ugly objects are what a node must be tried with. What is no
DICOM file is skipped and said.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.presentation import PresentationContext, build_context

from node.delivery.answers import answer_text, outcome_of, printable, with_words
from node.delivery.association import MAX_CONTEXTS, Line, open_line, peer_text
from node.errors import DeliveryError
from node.settings import Destination

# send_c_store(path) then streams the file's own bytes instead of decoding and encoding them.
_config.STORE_SEND_CHUNKED_DATASET = True

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_AT_ONCE = 8
_NOT_SENT = "not sent"
_UID = re.compile(r"[0-9.]{5,64}")

Outcome = Literal["SENT", "FAILED", "SKIPPED"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file."""

    path: Path
    outcome: Outcome
    """SENT: the peer answered 0000 or a warning. SKIPPED: no DICOM instance."""
    status: int | None
    """The peer's DIMSE status; None where it gave none."""
    reason: str


@dataclass(frozen=True, slots=True)
class SendReport:
    """What became of a folder, in the order of its files."""

    files: tuple[FileReport, ...]
    bytes: int
    """Of the files that were sent."""
    seconds: float

    def of(self, outcome: Outcome) -> tuple[FileReport, ...]:
        """Return the reports with that outcome."""
        return tuple(report for report in self.files if report.outcome == outcome)


@dataclass(frozen=True, slots=True)
class _Instance:
    path: Path
    sop_class_uid: str
    transfer_syntax: str
    has_meta: bool


OnReport = Callable[[FileReport], None]


@dataclass(frozen=True, slots=True)
class Modality:
    """Sends to one node."""

    called_ae_title: str
    host: str
    port: int
    calling_ae_title: str = "MODALITY"
    associations: int = 1
    """The files are dealt out to this many; at most 8 are open at once."""
    timeout_s: float = 60.0

    def send(self, folder: Path, on_report: OnReport = lambda _: None) -> SendReport:
        """Send every DICOM file below `folder` (or the one file), telling `on_report` of each as it ends.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: AE titles, host or port cannot be (pydantic's ValidationError), or fewer than 1 association.
        """
        if self.associations < 1:
            raise ValueError(f"associations {self.associations} must be at least 1")
        node = Destination(
            name="node", ae_title=self.called_ae_title, host=self.host, port=self.port, timeout_s=self.timeout_s
        )
        begun = time.monotonic()
        instances, skipped = _sorted_out(_files(folder))
        for report in skipped:
            on_report(report)
        hands = [instances[start :: self.associations] for start in range(self.associations)]
        with ThreadPoolExecutor(min(_AT_ONCE, self.associations)) as senders:
            tasks = [senders.submit(self._send_hand, node, hand, on_report) for hand in hands if hand]
            reports = [*skipped, *(report for task in tasks for report in task.result())]
        total = sum(report.path.stat().st_size for report in reports if report.outcome == "SENT")
        return SendReport(tuple(sorted(reports, key=lambda r: r.path)), total, time.monotonic() - begun)

    def _send_hand(self, node: Destination, hand: Sequence[_Instance], on_report: OnReport) -> list[FileReport]:
        """Send within one association, or more where 128 contexts do not do or the peer breaks it."""
        reports: list[FileReport] = []

        def tell(report: FileReport) -> None:
            reports.append(report)
            on_report(report)

        for batch in _batches(hand):
            left: Sequence[_Instance] = batch
            while left:
                left = self._send_batch(node, left, tell)
        return reports

    def _send_batch(self, node: Destination, batch: Sequence[_Instance], tell: OnReport) -> Sequence[_Instance]:
        """Send what one association takes; return what is left because it broke after at least one file."""
        done = 0
        try:
            with open_line(node, self.calling_ae_title, _contexts(batch)) as line:
                for number, instance in enumerate(batch, 1):
                    report = _send(line, node, instance, number)
                    tell(report)
                    done = number
                    if report.status is None and not report.reason.startswith(_NOT_SENT):
                        break
        except DeliveryError as error:
            for instance in batch[done:]:
                tell(FileReport(instance.path, "FAILED", error.dimse_status, str(error)))
            return ()
        return batch[done:]


def send_folder(
    folder: Path,
    *,
    called_ae_title: str,
    host: str,
    port: int,
    calling_ae_title: str = "MODALITY",
    associations: int = 1,
) -> SendReport:
    """Send a folder with the settings of Modality."""
    return Modality(called_ae_title, host, port, calling_ae_title, associations).send(folder)


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Remedy: name a folder with DICOM files.")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sorted_out(paths: Sequence[Path]) -> tuple[list[_Instance], list[FileReport]]:
    instances, skipped = [], []
    for path in paths:
        found = _instance(path)
        if isinstance(found, str):
            skipped.append(FileReport(path, "SKIPPED", None, found))
        else:
            instances.append(found)
    return instances, skipped


def _instance(path: Path) -> _Instance | str:
    """Return what must be known to send a file, or why it is skipped."""
    try:
        with path.open("rb") as file:
            has_meta = file.read(132)[128:] == b"DICM"
        if has_meta:
            meta = read_file_meta_info(path)
            sop_class, syntax = meta.get("MediaStorageSOPClassUID", ""), meta.get("TransferSyntaxUID", "")
        else:
            data_set = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID"])
            sop_class, syntax = data_set.get("SOPClassUID", ""), ImplicitVRLittleEndian
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        return f"no DICOM file: {error}"
    if not (_UID.fullmatch(str(sop_class)) and _UID.fullmatch(str(syntax))):
        return "no DICOM instance: no SOP Class UID"
    if sop_class == MEDIA_DIRECTORY:
        return "a DICOMDIR is no instance"
    return _Instance(path, str(sop_class), str(syntax), has_meta)


def _batches(instances: Sequence[_Instance]) -> Iterator[list[_Instance]]:
    """Deal instances into runs that need at most 128 presentation contexts each."""
    batch: list[_Instance] = []
    pairs: set[tuple[str, str]] = set()
    for instance in instances:
        pair = (instance.sop_class_uid, instance.transfer_syntax)
        if len(pairs | {pair}) > MAX_CONTEXTS:
            yield batch
            batch, pairs = [], set()
        batch.append(instance)
        pairs.add(pair)
    if batch:
        yield batch


def _contexts(batch: Sequence[_Instance]) -> list[PresentationContext]:
    pairs = dict.fromkeys((instance.sop_class_uid, instance.transfer_syntax) for instance in batch)
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def _send(line: Line, node: Destination, instance: _Instance, number: int) -> FileReport:
    peer = peer_text(node)
    try:
        with line.within(node.timeout_s):
            answer = line.association.send_c_store(_content(instance), msg_id=number & 0xFFFF or 1)
    except RuntimeError:
        return FileReport(instance.path, "FAILED", None, f"{peer} ended the association")
    except (ValueError, AttributeError, TypeError, OSError) as error:
        return FileReport(instance.path, "FAILED", None, f"{_NOT_SENT}: {' '.join(str(error).split())[:200]}")
    if "Status" not in answer:
        return FileReport(instance.path, "FAILED", None, f"{peer} aborted or gave no answer in {node.timeout_s:g} s")
    text = with_words(answer_text(peer, answer.Status), printable(str(answer.get("ErrorComment", ""))))
    outcome: Outcome = "SENT" if outcome_of(answer.Status)[0] == "SENT" else "FAILED"
    return FileReport(instance.path, outcome, int(answer.Status), text)


def _content(instance: _Instance) -> Path | Dataset:
    """Return the file where its meta names what is in it, else its data set."""
    if instance.has_meta:
        return instance.path
    data_set = dcmread(instance.path, force=True)
    data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return data_set
