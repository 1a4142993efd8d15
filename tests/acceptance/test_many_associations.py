"""A study that comes in 300 associations of one image each is one run."""

from pathlib import Path

from node.testing.modality import Modality
from node.testing.pacs import StandInPacs
from node.testing.phantom import write_phantom
from tests.node_process import NodeProcess


def test_300_associations_of_one_image_are_one_run(tmp_path: Path, bright_node: NodeProcess, pacs: StandInPacs) -> None:
    study = write_phantom(tmp_path / "study", slices=300, size=64, slice_spacing_mm=1.0, seed=3)
    bright_node.changes = {"completion": {"settle_s": 2.0}}
    with bright_node:
        report = Modality("HILUM", "127.0.0.1", bright_node.port, associations=300).send(study.files[0].parent)
        assert len(report.of("SENT")) == 300
        assert bright_node.wait_for_end(1) == {study.study_uid: "DONE"}
        history = bright_node.history(study.study_uid)
    assert history is not None
    assert [part.instances for part in history.generations] == [300]
    assert [run.state for run in history.runs] == ["EVIDENCE"]
    assert sorted(pacs.copies.values()) == [1, 1]
