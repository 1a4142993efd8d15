"""Tables that commands print: findings, verdicts."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from node.commands.output import unbroken
from node.domain.findings import Findings
from node.domain.study import Verdict
from node.results.findings_builder import findings_as_rows


def findings_table(findings: Findings) -> Table:
    """Return one row per finding with its measurements; says so where nothing was found."""
    rows = findings_as_rows(findings)
    if not rows:
        return _plain("Nothing found" + _dropped(findings))
    table = Table(title=f"{len(rows)} finding(s){_dropped(findings)}", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name in {"Finding", "Site"} else "right")
    for row in rows:
        table.add_row(*(escape(text) for text in row.values()))
    return table


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row per series: taken or not, and why."""
    table = Table(unbroken("Series"), "Model", "Taken", "Why")
    for item in verdicts:
        model = f"{item.model_name} {item.model_version}"
        table.add_row(item.series_uid, model, "[green]yes[/green]" if item.taken else "no", escape(item.reason))
    return table


def _dropped(findings: Findings) -> str:
    dropped, beyond = findings.candidates_dropped, findings.beyond_limit
    said = f"; {beyond} more beyond the most that the model reports, left out" if beyond else ""
    return said + (f"; {dropped} candidate(s) below the model's size or probability limits" if dropped else "")


def _plain(text: str) -> Table:
    table = Table(show_header=False)
    table.add_row(text)
    return table
