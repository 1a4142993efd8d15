"""The bytes that leave: as they lie where the peer takes them, re-encoded with equal content where it does not."""

from pathlib import Path

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AllStoragePresentationContexts

from node.delivery.answers import SendResult
from node.delivery.echo import c_echo
from node.delivery.storage_scu import contexts_for, send_objects
from tests.scripted_pacs import (
    Pacs,
    data_set_bytes,
    decoded,
    evidence_files,
    free_port,
    rejecting_pacs,
    scripted_pacs,
    values_of,
)


def test_accepted_syntax_of_the_file_sends_its_own_bytes(tmp_path: Path) -> None:
    objects = evidence_files(tmp_path)
    results: list[SendResult] = []
    with scripted_pacs() as pacs:
        send_objects(pacs.destination(), "HILUM", objects, results.append)
    assert [(syntax, content) for _, syntax, content in pacs.stored] == [
        (ExplicitVRLittleEndian, data_set_bytes(path)) for _, path in objects
    ]


def test_implicit_only_peer_gets_equal_content_and_the_file_stays(tmp_path: Path) -> None:
    objects = evidence_files(tmp_path)
    before = [path.read_bytes() for _, path in objects]
    results: list[SendResult] = []
    with scripted_pacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        send_objects(pacs.destination(), "HILUM", objects, results.append)
    assert [item.outcome for item in results] == ["SENT", "SENT"]
    for (_, syntax, content), (_, path) in zip(pacs.stored, objects, strict=True):
        assert syntax == ImplicitVRLittleEndian
        sent, kept = decoded(content, syntax), decoded(data_set_bytes(path), ExplicitVRLittleEndian)
        assert values_of(sent) == values_of(kept)
        assert sent[0x0009, 0x1001].value == b"private "
    assert [path.read_bytes() for _, path in objects] == before


def test_peer_without_any_offered_syntax_refuses(tmp_path: Path) -> None:
    results: list[SendResult] = []
    with scripted_pacs(syntaxes=[DeflatedExplicitVRLittleEndian]) as pacs:
        send_objects(pacs.destination(), "HILUM", evidence_files(tmp_path), results.append)
    assert [item.outcome for item in results] == ["REFUSED", "REFUSED"]


def test_every_object_offers_explicit_and_implicit(tmp_path: Path) -> None:
    contexts = contexts_for(evidence_files(tmp_path))
    offered = {(str(context.abstract_syntax), str(context.transfer_syntax[0])) for context in contexts}
    assert {syntax for _, syntax in offered} == {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    assert len(offered) == len(contexts) == 4


def test_set_of_many_classes_is_split_into_associations_of_128_contexts(tmp_path: Path) -> None:
    classes = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts[:70])
    objects = evidence_files(tmp_path, classes)
    results: list[SendResult] = []
    with scripted_pacs(sop_classes=classes) as pacs:
        send_objects(pacs.destination(), "HILUM", objects, results.append)
    assert [item.outcome for item in results] == ["SENT"] * 70
    assert pacs.associations == 2


def test_large_object_crosses_small_pdus_unchanged(tmp_path: Path) -> None:
    objects = evidence_files(tmp_path, ("SEG",), pixels=1 << 20)
    results: list[SendResult] = []
    with scripted_pacs() as pacs:
        send_objects(pacs.destination(), "HILUM", objects, results.append)
    assert pacs.stored[0][2] == data_set_bytes(objects[0][1])


def test_echo_says_who_answered() -> None:
    with scripted_pacs() as pacs:
        outcome = c_echo(pacs.destination(), "HILUM")
    assert outcome.answered
    assert f"pacs (PACS@127.0.0.1:{pacs.port}) answered 0000" in outcome.text


def test_echo_says_what_is_wrong() -> None:
    away = c_echo(Pacs(port=free_port()).destination(), "HILUM")
    with rejecting_pacs(1, 1, 3) as pacs:
        # A peer that closes right behind its rejection may take it back with a reset, which is out of our hands.
        outcomes = [c_echo(pacs.destination(), "HILUM") for _ in range(3)]
    unknown = max(outcomes, key=lambda outcome: "recognised" in outcome.text)
    assert not away.answered
    assert "takes no connection" in away.text
    assert not unknown.answered
    assert "Calling AE title not recognised" in unknown.text
