"""A result file as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from vmjit.bench.plots import sweeps
from vmjit.bench.results_file import Results
from vmjit.bench.sheets import EXPLANATIONS, Sheet, conditions, remarks, sheets
from vmjit.bench.svg import STYLE, drawn


def page(results: Results, more: Sequence[Sheet] = ()) -> str:
    """The page; `more` sheets come first."""
    template = Template((resources.files("vmjit.bench") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        plot_style=STYLE,
        conditions=escape(conditions(results)),
        remarks=_list(remarks(results)),
        plots="\n".join(f"<figure>{drawn(plot)}</figure>" for plot in sweeps(results)),
        sheets="\n".join(_table(sheet) for sheet in (*more, *sheets(results))),
        explanations=_list(EXPLANATIONS),
    )


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in sheet.header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in line) + "</tr>" for line in sheet.lines)
    return (
        f"<section><h2>{escape(sheet.title)}</h2><div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{_list(sheet.notes)}</section>"
    )
