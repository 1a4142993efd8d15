"""Which series of a study a model gets, and why not the others: one verdict with a reason for every series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node.domain.instances import ImageHeader
from node.domain.slice_order import Stack
from node.domain.study import Verdict
from node.routing.acceptance import content_reasons, geometry_reasons, kind_reason, unchecked
from protos.model_manifest import AcceptedInput, ModelManifest


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A series that the model takes; candidates sort with the best first."""

    series_uid: str
    slices: int
    spacing_mm: float
    derived: bool
    notes: tuple[str, ...]

    @property
    def rank(self) -> tuple[int, float, bool, str]:
        """Most slices, then the thinnest spacing (to 0.01 mm), then original images, then the smaller UID."""
        return -self.slices, round(self.spacing_mm, 2), self.derived, self.series_uid


def judge(manifest: ModelManifest, series: Mapping[str, Sequence[ImageHeader]]) -> tuple[Verdict, ...]:
    """Return one verdict per series, in the order of `series`; at most one is `taken`.

    `series` maps Series Instance UID to the headers of its instances, in any order. Every rule of the manifest's
    `accepts` is looked at; a refused series is told everything that its description says against it, or, where that
    is fine, everything in its geometry. Among several that fit the best wins: most slices, then the thinnest spacing,
    then original before derived images, then the smaller Series Instance UID. The same input gives the same verdicts.
    """
    reasons: dict[str, str] = {}
    fitting: list[_Candidate] = []
    for series_uid, headers in series.items():
        looked_at = _look_at(manifest.accepts, series_uid, headers)
        if isinstance(looked_at, _Candidate):
            fitting.append(looked_at)
        else:
            reasons[series_uid] = looked_at
    fitting.sort(key=lambda candidate: candidate.rank)
    for candidate in fitting[1:]:
        reasons[candidate.series_uid] = f"it fits, but series {fitting[0].series_uid} {_better(fitting[0], candidate)}"
    taken = fitting[0].series_uid if fitting else None
    if taken is not None:
        reasons[taken] = _why_taken(fitting)
    return tuple(
        Verdict(
            model_name=manifest.identity.name,
            model_version=manifest.identity.version,
            series_uid=series_uid,
            taken=series_uid == taken,
            reason=reasons[series_uid],
        )
        for series_uid in series
    )


def _look_at(accepts: AcceptedInput, series_uid: str, headers: Sequence[ImageHeader]) -> _Candidate | str:
    """Return the series as a candidate, or everything that speaks against it."""
    if not headers:
        return "none of its instances could be read as an image"
    wrong_kind = kind_reason(accepts, headers)
    if wrong_kind:
        return wrong_kind
    reasons = content_reasons(accepts, headers)
    if reasons:
        return "; ".join(reasons)
    stack, reasons = geometry_reasons(accepts, headers)
    if stack is None or reasons:
        return "; ".join(reasons)
    return _candidate(series_uid, stack, unchecked(accepts, headers))


def _candidate(series_uid: str, stack: Stack, notes: Sequence[str]) -> _Candidate:
    return _Candidate(
        series_uid=series_uid,
        slices=len(stack.headers),
        spacing_mm=stack.geometry.spacing[0],
        derived=any("DERIVED" in header.image_type for header in stack.headers),
        notes=tuple(notes),
    )


def _why_taken(fitting: Sequence[_Candidate]) -> str:
    best = fitting[0]
    size = f"{best.slices} slices, {best.spacing_mm:g} mm apart"
    if len(fitting) == 1:
        reason = f"{size}: the only series that fits"
    else:
        reason = f"{size}: of {len(fitting)} series that fit, it {_better(best, fitting[1])}"
    return "; ".join([reason, *(f"not checked: {note}" for note in best.notes)])


def _better(best: _Candidate, other: _Candidate) -> str:
    """Say in what `best` is ahead of `other`, as the rank decides it."""
    if best.slices != other.slices:
        return f"has more slices ({best.slices} against {other.slices})"
    if best.rank[1] != other.rank[1]:
        return f"has thinner slices ({best.spacing_mm:.2f} mm apart against {other.spacing_mm:.2f} mm)"
    if best.derived != other.derived:
        return "holds original images, not derived ones (Image Type (0008,0008))"
    return "is alike in slices, spacing and kind, and the smaller Series Instance UID decides"
