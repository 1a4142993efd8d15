import numpy as np
import pytest

from node.domain.findings import Findings
from training.datasets.lidc_crops import Crop
from training.evaluate import crop_figures, predict_crops, scan_score
from training.metrics import bootstrap, dice


def test_dice_counts_only_the_pixels_it_is_given() -> None:
    found, truth = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    every = np.ones(4, bool)
    assert dice(found, truth, every) == 0.5
    assert dice(found, truth, np.array([1, 0, 0, 1], bool)) == 1
    assert dice(~every, ~every, every) == 1


def test_the_bootstrap_draws_whole_patients() -> None:
    values = [0.0] * 50 + [1.0] * 50
    one_each = bootstrap(values, [str(number) for number in range(100)])
    two = bootstrap(values, ["a"] * 50 + ["b"] * 50)
    assert one_each.mean == two.mean == 0.5
    assert (two.low, two.high) == (0, 1)
    assert one_each.low == pytest.approx(0.4, abs=0.03)
    assert one_each.n == 100


def test_crops_without_consensus_are_not_scored_and_other_marks_are_counted() -> None:
    readers = np.zeros((32, 32), np.uint8)
    readers[12:20, 12:20] = 3
    crop = Crop("a", "p", "n", 1.0, np.zeros_like(readers), readers)
    lone = Crop("b", "p", "n", 1.0, np.zeros_like(readers), (readers > 0).astype(np.uint8))
    probability = np.zeros((32, 32), np.float32)
    probability[12:20, 12:16] = 0.9
    probability[2:6, 2:6] = 0.8
    probability[28, 28] = 0.8
    predicted = predict_crops([crop, lone], lambda _: probability)
    assert len(predicted) == 1
    figures = crop_figures(predicted, 0.5)
    assert figures.hits.mean == 1
    assert figures.false_marks.mean == 1
    assert figures.dice.mean == pytest.approx(2 * 32 / (64 + 32 + 16 + 1))


def test_a_scan_is_scored_by_overlap() -> None:
    labels = np.zeros((3, 8, 8), np.uint16)
    labels[1, 1:3, 1:3] = 1
    labels[2, 6, 6] = 2
    nodule, missed = labels == 1, np.zeros(labels.shape, bool)
    missed[0, 4, 4] = True
    findings = Findings((None, None), labels, 0)  # type: ignore[arg-type]
    score = scan_score(findings, [nodule, missed])
    assert score.found == (True, False)
    assert score.dice == (1.0, 0.0)
    assert score.others == 1
