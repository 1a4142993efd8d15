"""A real listener on a free port over a real store and index, and the instances that tests send to it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import Engine

from node.domain.instances import ReceivedInstance
from node.index.engine import open_index
from node.intake.listener import Listener
from node.settings import ListenerSettings
from node.store.instance_files import InstanceStore

STUDY, SERIES = "1.2.826.0.1.3680043.9.1", "1.2.826.0.1.3680043.9.1.1"
_numbers = itertools.count(1)


@dataclass
class Receiver:
    listener: Listener
    host: str
    port: int
    store: InstanceStore
    engine: Engine
    stored: list[ReceivedInstance] = field(default_factory=list)
    closed: list[frozenset[str]] = field(default_factory=list)


@contextmanager
def receiver(directory: Path, *, low_disk_bytes: int = 0, **settings: object) -> Iterator[Receiver]:
    stored: list[ReceivedInstance] = []
    closed: list[frozenset[str]] = []
    store = InstanceStore(directory / "store")
    engine = open_index(directory / "index.sqlite")
    listener = Listener(
        ListenerSettings.model_validate({"port": 0, **settings}),
        store,
        engine,
        low_disk_bytes=low_disk_bytes,
        on_stored=stored.append,
        on_closed=closed.append,
    )
    host, port = listener.start()
    try:
        yield Receiver(listener, host, port, store, engine, stored, closed)
    finally:
        listener.stop()
        engine.dispose()


def ct_image(*, study: str = STUDY, series: str = SERIES, uid: str | None = None, seed: int = 0) -> Dataset:
    """A small CT image with every attribute that pixels need; pixels follow from `seed`."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = uid or f"{series}.{next(_numbers)}"
    image.Modality = "CT"
    image.PatientName = "Test^Phantom"
    image.PatientID = "PHANTOM-1"
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = series
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = 16
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 1
    image.PixelData = np.random.default_rng(seed).integers(-1000, 1000, (16, 16), np.int16).tobytes()
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def associate(
    to: Receiver,
    contexts: list[tuple[str, list[str]]] | None = None,
    *,
    calling: str = "MODALITY",
    called: str = "HILUM",
    source: str | None = None,
) -> Association:
    """Open an association to the receiver, from another loopback address where `source` says so."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = 20
    for abstract_syntax, transfer_syntaxes in contexts or [(CTImageStorage, [ExplicitVRLittleEndian])]:
        entity.add_requested_context(abstract_syntax, transfer_syntaxes)
    bind = (source, 0) if source else ("", 0)
    return entity.associate(to.host, to.port, ae_title=called, bind_address=bind)


def send(to: Receiver, *images: Dataset, calling: str = "MODALITY") -> list[Dataset]:
    """Send images of any class and transfer syntax over one association; return the statuses."""
    wanted = {(str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID)) for image in images}
    association = associate(to, [(abstract, [syntax]) for abstract, syntax in sorted(wanted)], calling=calling)
    assert association.is_established
    try:
        return [association.send_c_store(image) for image in images]
    finally:
        association.release()
