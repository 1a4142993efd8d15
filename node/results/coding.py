"""From plain codes to the coded concepts of highdicom."""

from highdicom.sr import CodedConcept

from node.domain.findings import Code


def coded(code: Code) -> CodedConcept:
    """Return the Code Sequence item of a code (PS3.3 8.8)."""
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
