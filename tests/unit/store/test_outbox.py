"""The outbox: write-once, durable, adopted by whoever comes second, readable without the index."""

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.domain.evidence import EvidenceObject, EvidenceSet
from node.domain.instances import SopReference
from node.errors import EvidenceRejected, OutOfResources
from node.store.outbox import DESCRIPTION_FILE, REASONS_FILE, Outbox, file_digest

KEY = "ab" * 32
MADE_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def written(outbox: Outbox, content: bytes = b"object", key: str = KEY) -> EvidenceSet:
    work = outbox.work_directory()
    path = work / "sr-1.dcm"
    path.write_bytes(content)
    item = EvidenceObject("SR", SopReference("1.2.3", "1.2.4"), "1.2.5", "1.2.6", path.name, file_digest(path))
    return EvidenceSet(key, work, "1.2.7", "cd" * 32, "standard", (item,), MADE_AT)


def publish(outbox: Outbox, content: bytes = b"object", key: str = KEY) -> EvidenceSet:
    evidence = written(outbox, content, key)
    return outbox.adopt_or_publish(evidence.directory, evidence)


def test_a_published_set_is_found_again_equal(tmp_path: Path) -> None:
    published = publish(Outbox(tmp_path))
    assert Outbox(tmp_path).find(KEY) == published
    assert published.directory.is_relative_to(tmp_path)
    assert file_digest(published.directory / "sr-1.dcm") == published.objects[0].file_digest


def test_an_unknown_key_is_not_found(tmp_path: Path) -> None:
    assert Outbox(tmp_path).find(KEY) is None


def test_who_comes_second_adopts_and_never_overwrites(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    first = publish(outbox, b"first")
    second = publish(outbox, b"second")
    assert second == first
    assert (first.directory / "sr-1.dcm").read_bytes() == b"first"
    assert outbox.sweep() == 0


def test_a_race_has_one_winner_and_all_see_the_same_set(tmp_path: Path) -> None:
    outbox, start, seen = Outbox(tmp_path), threading.Barrier(8), []

    def run(number: int) -> None:
        evidence = written(outbox, b"%d" % number)
        start.wait()
        seen.append(outbox.adopt_or_publish(evidence.directory, evidence))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert file_digest(seen[0].directory / "sr-1.dcm") == seen[0].objects[0].file_digest


def test_every_set_is_listed_for_a_new_index(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    keys = [f"{number:064x}" for number in (3, 1, 2)]
    for key in keys:
        publish(outbox, key=key)
    assert [evidence.key for evidence in outbox.scan() if isinstance(evidence, EvidenceSet)] == sorted(keys)


def test_an_unreadable_set_does_not_end_the_list(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    published = publish(outbox)
    (tmp_path / "sets" / "aaa").mkdir()
    (tmp_path / "sets" / "file").write_text("of a person")
    first, second, third = outbox.scan()
    assert isinstance(first, EvidenceRejected)
    assert "sets/aaa" in str(first)
    assert second == published
    assert isinstance(third, EvidenceRejected)


def test_a_rejected_set_lies_aside_with_its_reasons_and_is_not_found(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    places = []
    for _ in range(2):
        evidence = written(outbox)
        places.append(outbox.quarantine(evidence.directory, KEY, ("SR-TITLE: wrong", "OBJ-UIDS: wrong too")))
    assert outbox.find(KEY) is None
    assert len(set(places)) == 2
    assert (places[0] / REASONS_FILE).read_text().splitlines() == ["SR-TITLE: wrong", "OBJ-UIDS: wrong too"]
    assert list(outbox.scan()) == []


def test_what_an_interrupted_writer_left_is_swept(tmp_path: Path) -> None:
    written(Outbox(tmp_path))
    assert Outbox(tmp_path).sweep() == 1
    assert Outbox(tmp_path).sweep() == 0


@pytest.mark.parametrize("text", ["", "{", "{}", '{"key": 1, "objects": [{"x": 1}]}'])
def test_a_damaged_description_is_named_with_a_remedy(tmp_path: Path, text: str) -> None:
    outbox = Outbox(tmp_path)
    published = publish(outbox)
    (published.directory / DESCRIPTION_FILE).write_text(text)
    with pytest.raises(EvidenceRejected, match="Remedy"):
        outbox.find(KEY)


def test_a_set_that_cannot_be_made_durable_is_out_of_resources(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    evidence = written(outbox)
    gone = replace(evidence, directory=tmp_path / "gone")
    with pytest.raises(OutOfResources, match="durable"):
        outbox.adopt_or_publish(gone.directory, gone)
    assert outbox.find(KEY) is None
