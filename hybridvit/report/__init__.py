"""One page that shows what a run was worth."""

from hybridvit.report.content import Answer, Bar, Change, Confusion, Curve, Figure, Gallery, Report, Table
from hybridvit.report.html import render, write_report

__all__ = [
    "Answer",
    "Bar",
    "Change",
    "Confusion",
    "Curve",
    "Figure",
    "Gallery",
    "Report",
    "Table",
    "render",
    "write_report",
]
