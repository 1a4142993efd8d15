"""Sources in other character sets: results are in ISO_IR 192 and say the same names."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_charset_files
from pydicom.dataset import Dataset

from node.results.evidence_writer import write_objects
from node.results.source_series import source_series
from tests.evidence_cases import two_nodules
from tests.series_factory import SeriesPlan

VOXELS = np.full((12, 48, 40), 24, np.int16)


def results_of(plan: SeriesPlan, directory: Path) -> list[Dataset]:
    request = two_nodules(directory / "series", plan)
    (directory / "objects").mkdir()
    objects = write_objects(request, source_series(request.volume, request.headers), directory / "objects")
    return [dcmread(directory / "objects" / item.file_name) for item in objects]


@pytest.mark.parametrize(
    ("charset", "name", "description"),
    [
        ("GB18030", "Wang^XiaoDong=王^小东", "胸部CT平扫"),
        ("ISO_IR 100", "Buc^Jérôme", "Thorax größer"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "胸部"),
        ("ISO_IR 192", "Люкceмбypг", "胸部"),
        (None, "Doe^Jane", "Chest"),
    ],
)
def test_names_and_texts_are_the_same_in_utf_8(
    tmp_path: Path, charset: str | list[str] | None, name: str, description: str
) -> None:
    plan = SeriesPlan(
        VOXELS, charset=charset, attributes={"PatientName": name, "StudyDescription": description, "PatientID": "7"}
    )
    for dataset in results_of(plan, tmp_path):
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == name
        assert dataset.StudyDescription == description


@pytest.mark.parametrize("file", ["chrX1", "chrX2", "chrH31", "chrGerm", "chrRuss", "chrFren", "chrKoreanMulti"])
def test_names_of_the_wheel_s_character_set_files_survive(tmp_path: Path, file: str) -> None:
    original = dcmread(get_charset_files(f"{file}.dcm")[0])
    original.decode()
    plan = SeriesPlan(
        VOXELS, charset=original.get("SpecificCharacterSet"), attributes={"PatientName": original.PatientName}
    )
    for dataset in results_of(plan, tmp_path):
        assert str(dataset.PatientName) == str(original.PatientName)


def test_names_inside_sequences_are_decoded_too(tmp_path: Path) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "1.2.3"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "X1", "99LOCAL", "胸部CT"
    attributes = {
        "ReferencedStudySequence": [item],
        "ProcedureCodeSequence": [code],
        "OtherPatientNames": ["王^小东", "A^B"],
    }
    for dataset in results_of(SeriesPlan(VOXELS, charset="GB18030", attributes=attributes), tmp_path):
        assert dataset.ProcedureCodeSequence[0].CodeMeaning == "胸部CT"
        assert [str(name) for name in dataset.OtherPatientNames] == ["王^小东", "A^B"]
