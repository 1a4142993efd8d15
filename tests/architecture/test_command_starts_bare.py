"""`hilum --help` works without TensorFlow or a DICOM library being imported."""

import subprocess
import sys

HEAVY = ("tensorflow", "ray", "keras", "pydicom", "pynetdicom", "highdicom", "dbos", "sqlalchemy", "scipy")


def test_help_imports_no_heavy_library() -> None:
    program = (
        f"import sys; from node.cli import build; build();print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
