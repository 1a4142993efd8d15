"""What the linter's rules look at and what they say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydicom.dataset import Dataset

from node.results import concepts, sr_tree
from node.results.source_series import SourceSeries

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Inspected:
    """The objects of one evidence set as they were read back from their files, and their source."""

    segmentation: Dataset | None
    report: Dataset
    source: SourceSeries
    own_segments: int | None = None
    """How many findings are a segment of their own; None: all."""

    @property
    def objects(self) -> tuple[Dataset, ...]:
        """Every object of the set."""
        return (self.report,) if self.segmentation is None else (self.segmentation, self.report)

    @cached_property
    def items(self) -> tuple[Dataset, ...]:
        """Every content item of the report."""
        return tuple(sr_tree.descendants(self.report))

    @cached_property
    def groups(self) -> tuple[Dataset, ...]:
        """The measurement groups of the report."""
        return tuple(item for item in self.items if sr_tree.is_named(item, concepts.MEASUREMENT_GROUP))

    @cached_property
    def segments(self) -> tuple[Dataset, ...]:
        """The items of Segment Sequence."""
        return tuple(self.segmentation.get("SegmentSequence") or ()) if self.segmentation is not None else ()

    @cached_property
    def frames(self) -> tuple[Dataset, ...]:
        """The per-frame functional groups of the segmentation."""
        if self.segmentation is None:
            return ()
        return tuple(self.segmentation.get("PerFrameFunctionalGroupsSequence") or ())

    @cached_property
    def source_index(self) -> dict[str, int]:
        """Slice index by SOP Instance UID of the source."""
        return {header.sop.sop_instance_uid: index for index, header in enumerate(self.source.images)}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: what is wrong, in a sentence, and where the rule comes from."""

    rule: str
    severity: Severity
    sentence: str
    source: str

    def __str__(self) -> str:
        """Read as "rule: sentence (source)"."""
        return f"{self.rule}: {self.sentence} ({self.source})"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the linter's table."""

    identifier: str
    severity: Severity
    sentence: str
    """What must hold."""
    source: str
    """The clause of the standard or profile that says so, or the reader that needs it."""
    check: Callable[[Inspected], Iterator[str]]
    """Yields what is wrong, one text per place; never patient data."""
