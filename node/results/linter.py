"""The linter: structural rules on an evidence set, read back from its files before anything leaves."""

from collections.abc import Iterable
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from node.results.linter_rules_objects import OBJECT_RULES
from node.results.linter_rules_report import REPORT_RULES
from node.results.linter_rules_segmentation import SEGMENTATION_RULES
from node.results.linter_types import Inspected, Rule, Violation
from node.results.source_series import SourceSeries

RULES: tuple[Rule, ...] = (*OBJECT_RULES, *REPORT_RULES, *SEGMENTATION_RULES)
_SHOWN = 5
"""Places that a violation lists."""
_SET = Rule("SET-READABLE", "error", "one SR and at most one SEG, readable", "results: default set", lambda _: iter(()))


def lint(paths: Iterable[Path], source: SourceSeries, *, own_segments: int | None = None) -> tuple[Violation, ...]:
    """Read the objects of one evidence set and check them against every rule.

    Args:
        paths: The files of the set.
        source: The series they derive from.
        own_segments: How many findings have a segment of their own, which shares its tracking UID with a group of the
            report; None: all.

    Returns:
        What is broken, at most one violation per rule: its sentence lists every place.
    """
    with config.disable_value_validation():  # its warnings would print the values: patient data
        try:
            objects = [dcmread(path) for path in paths]
        except (OSError, InvalidDicomError) as error:
            return (_violation(_SET, [f"a file cannot be read: {type(error).__name__}"]),)
        return lint_objects(objects, source, own_segments=own_segments)


def lint_objects(
    objects: Iterable[Dataset], source: SourceSeries, *, own_segments: int | None = None
) -> tuple[Violation, ...]:
    """Check data sets that were read already."""
    by_modality: dict[str, list[Dataset]] = {}
    for dataset in objects:
        by_modality.setdefault(str(dataset.get("Modality") or ""), []).append(dataset)
    reports, segmentations = by_modality.pop("SR", []), by_modality.pop("SEG", [])
    if len(reports) != 1 or len(segmentations) > 1 or by_modality:
        others = sum(map(len, by_modality.values()))
        return (_violation(_SET, [f"{len(reports)} SR, {len(segmentations)} SEG, {others} other objects"]),)
    inspected = Inspected(segmentations[0] if segmentations else None, reports[0], source, own_segments)
    found = ((rule, list(rule.check(inspected))) for rule in RULES)
    return tuple(_violation(rule, places) for rule, places in found if places)


def _violation(rule: Rule, places: list[str]) -> Violation:
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    sentence = f"{rule.sentence}; but {'; '.join(places[:_SHOWN])}{more}"
    return Violation(rule.identifier, rule.severity, sentence, rule.source)
