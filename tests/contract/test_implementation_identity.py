"""One implementation identity on every association and in every file (PS3.7 D.3.3.2)."""

from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt

from node.delivery.echo import c_echo
from node.dimse.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.receiving import ct_image, receiver
from tests.scripted_pacs import Pacs

OURS = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)


def test_acceptor_and_stored_files_say_the_same(tmp_path: Path) -> None:
    image = ct_image(uid="1.2.3.4")
    entity = AE(ae_title="MODALITY")
    entity.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    with receiver(tmp_path) as running:
        association = entity.associate("127.0.0.1", running.port, ae_title="HILUM")
        said = association.acceptor.implementation_class_uid, association.acceptor.implementation_version_name
        assert association.send_c_store(image).Status == 0
        association.release()
        (file,) = (path for path in tmp_path.rglob("*.dcm"))
        meta = dcmread(file).file_meta
    assert said == OURS
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == OURS


def test_requestor_says_the_same() -> None:
    said: list[tuple[str, str | None]] = []

    def requested(event: evt.Event) -> None:
        peer = event.assoc.requestor
        said.append((peer.implementation_class_uid, peer.implementation_version_name))

    entity = AE(ae_title="PACS")
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers: list[tuple[evt.InterventionEvent | evt.NotificationEvent, Callable[..., object]]] = [
        (evt.EVT_REQUESTED, requested),
        (evt.EVT_C_ECHO, lambda _event: 0x0000),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        assert c_echo(Pacs(port=server.server_address[1]).destination(), "HILUM").answered
    finally:
        server.shutdown()
    assert said == [OURS]
