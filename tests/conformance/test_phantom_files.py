import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from node.testing.phantom import PhantomTruth, write_phantom

VALIDATORS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("phantom"), slices=6, size=96)


def validated(program: str, *arguments: str | Path) -> str:
    command = [str(VALIDATORS / program), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_every_slice_is_a_valid_ct_image(phantom: PhantomTruth) -> None:
    for path in phantom.files:
        said = validated("dciodvfy", "-new", path)
        assert "CTImage" in said
        assert not re.search("error|warning", said, re.IGNORECASE), said


def test_the_series_agrees_with_itself(phantom: PhantomTruth) -> None:
    assert validated("dcentvfy", *phantom.files) == ""


def test_nobody_could_be_meant(phantom: PhantomTruth) -> None:
    image = dcmread(phantom.files[0])
    assert str(image.PatientName) == "PHANTOM^CHEST"
    assert image.PatientID == "PHANTOM-0001"
    assert image.PatientBirthDate == ""
    assert "no living person" in image.PatientComments
