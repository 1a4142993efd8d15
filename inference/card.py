"""The model card of a bundle as lines for a terminal: what it is for, what it is not for, and what was measured."""

from collections.abc import Iterator

from protos.model_manifest import Figure, ModelManifest

_SHOWN = 3


def card_lines(manifest: ModelManifest) -> Iterator[str]:
    """Yield uses, limits, figures with their intervals, data sets with their licences, and a foreign origin."""
    yield f"Intended use: {manifest.use.intended_use}"
    yield f"Research use: {manifest.use.research_use}"
    yield from _listed("Limits", manifest.use.limits)
    yield from _listed("Figures", (_figure(item) for item in manifest.figures))
    datasets = (f"{item.name}; {item.licence}; split: {item.split}" for item in manifest.datasets)
    yield from _listed("Data sets", datasets)
    if manifest.origin is not None:
        origin = manifest.origin
        yield f"Origin: {origin.source or origin.file} ({origin.kind}, sha256 {origin.sha256}); {origin.credit}"


def figures_in_short(manifest: ModelManifest) -> str:
    """Say the first figures without their data sets, and how many more the card has."""
    shown = ", ".join(f"{item.name} {item.value:g} (n {item.n})" for item in manifest.figures[:_SHOWN])
    more = len(manifest.figures) - _SHOWN
    return (shown or "none") + (f"; {more} more in `hilum models check {manifest.identity.name}`" if more > 0 else "")


def _figure(item: Figure) -> str:
    between = f" ({item.low:g} to {item.high:g})" if item.low is not None and item.high is not None else ""
    return f"{item.name}: {item.value:g}{between}, n {item.n}, {item.dataset}" + (f"; {item.note}" if item.note else "")


def _listed(title: str, lines: "Iterator[str] | tuple[str, ...]") -> Iterator[str]:
    every = list(lines)
    yield f"{title}:" + ("" if every else " none stated")
    yield from (f"  - {line}" for line in every)
