import pytest

from node.domain.derived import DERIVED_MODALITIES, is_derived, is_derived_class

STORAGE = "1.2.840.10008.5.1.4.1.1."


def test_results_of_others_our_own_and_screenshots_are_derived_but_images_are_not() -> None:
    derived = ("66.4", "88.11", "88.33", "88.34", "88.59", "11.1", "481.3", "481.2", "104.1", "30", "66.7", "66")
    captures = ("7", "7.1", "7.2", "7.3", "7.4")
    images = ("2", "4", "2.1", "4.1", "20", "128", "1.1", "481.1", "481.23", "3.1", "6.1", "12.1", "77.1.5.1")
    assert all(is_derived_class(STORAGE + end) for end in (*derived, *captures))
    assert not any(is_derived_class(STORAGE + end) for end in images)


@pytest.mark.parametrize("modality", sorted(DERIVED_MODALITIES))
def test_stated_modality_counts_too(modality: str) -> None:
    assert is_derived(STORAGE + "2", modality)
    assert not is_derived(STORAGE + "2", "CT")
