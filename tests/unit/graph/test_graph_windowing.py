import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from inference.graph.windowing import WINDOWS, clipped, linear

VALUES = np.arange(-1500, 1500, dtype=np.int16).reshape(3, 100, 10)


@pytest.mark.parametrize("function", sorted(WINDOWS))
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (0.5, 1), (0, 2), (100.3, 7.7)])
def test_a_window_is_pydicoms(function: str, center: float, width: float) -> None:
    header = Dataset()
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsStored, header.PixelRepresentation = 16, 0
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = center, width, function
    with np.errstate(over="ignore"):
        expected = apply_windowing(VALUES, header) / 65535
    np.testing.assert_allclose(WINDOWS[function](VALUES.astype(np.float32), center, width), expected, atol=2e-6)


def test_a_linear_window_of_width_one_is_a_threshold() -> None:
    np.testing.assert_array_equal(linear(np.array([-1, 0, 0.25, 1], np.float32), 0.5, 1), [0, 0, 1, 1])


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0.9), ("LINEAR_EXACT", 0), ("SIGMOID", -1)])
def test_a_width_without_meaning_is_refused(function: str, width: float) -> None:
    with pytest.raises(ValueError, match="width"):
        WINDOWS[function](VALUES, 0, width)


def test_clipping_holds_the_bounds() -> None:
    np.testing.assert_array_equal(clipped(np.array([-9, 1, 9], np.float32), -1, 2), [-1, 1, 2])
    with pytest.raises(ValueError, match="low"):
        clipped(VALUES, 2, 2)
