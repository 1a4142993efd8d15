"""Reading the content tree of a structured report without recursion: anybody's tree may be deep (PS3.3 C.17.3)."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from node.domain.findings import Code


def children(item: Dataset) -> list[Dataset]:
    """Return the content items right below an item."""
    return list(item.get("ContentSequence") or [])


def descendants(item: Dataset) -> Iterator[Dataset]:
    """Yield every content item below an item, parents before children, in document order."""
    waiting = children(item)[::-1]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(children(current)[::-1])


def value_type(item: Dataset) -> str:
    """Return the Value Type of a content item, empty where it has none."""
    return str(item.get("ValueType") or "")


def concept(item: Dataset) -> Code | None:
    """Return the concept name of an item."""
    return first_code(item, "ConceptNameCodeSequence")


def first_code(item: Dataset, keyword: str) -> Code | None:
    """Return the first code of a code sequence; None where it is absent or empty."""
    sequence = item.get(keyword)
    if not sequence:
        return None
    entry = sequence[0]
    value = entry.get("CodeValue") or entry.get("LongCodeValue") or entry.get("URNCodeValue") or ""
    return Code(str(value), str(entry.get("CodingSchemeDesignator") or ""), str(entry.get("CodeMeaning") or ""))


def is_named(item: Dataset, name: Code) -> bool:
    """Tell whether an item's concept name is `name`, whatever the meaning says."""
    found = concept(item)
    return found is not None and (found.value, found.scheme) == (name.value, name.scheme)


def named(parent: Dataset, name: Code) -> list[Dataset]:
    """Return the items right below `parent` with a concept name."""
    return [item for item in children(parent) if is_named(item, name)]


def anywhere(root: Dataset, name: Code) -> list[Dataset]:
    """Return every item below `root` with a concept name."""
    return [item for item in descendants(root) if is_named(item, name)]


def text_of(item: Dataset) -> str:
    """Return what a TEXT, UIDREF, PNAME, CODE or NUM item says."""
    for keyword in ("TextValue", "UID", "PersonName"):
        if item.get(keyword):
            return str(item.get(keyword))
    code = first_code(item, "ConceptCodeSequence")
    if code is not None:
        return code.meaning
    number = number_of(item)
    return "" if number is None else f"{number[0]:.2f} {number[1].value if number[1] else ''}".rstrip()


def number_of(item: Dataset) -> tuple[float, Code | None] | None:
    """Return value and unit of a NUM item; None where it has no measured value."""
    measured = item.get("MeasuredValueSequence")
    if not measured or measured[0].get("NumericValue") is None:
        return None
    return float(measured[0].NumericValue), first_code(measured[0], "MeasurementUnitsCodeSequence")


def references(item: Dataset) -> list[str]:
    """Return the SOP Instance UIDs that an IMAGE or COMPOSITE item refers to."""
    return [str(entry.get("ReferencedSOPInstanceUID") or "") for entry in item.get("ReferencedSOPSequence") or []]
