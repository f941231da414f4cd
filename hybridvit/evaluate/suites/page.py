"""The report of suites: accuracies with the published values beside, corruptions, calibration, classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridvit.data.imagenet import in_words
from hybridvit.evaluate.suites.labels import subset_synsets, synsets
from hybridvit.evaluate.suites.measures import reliability, wilson
from hybridvit.evaluate.suites.run import PartResult
from hybridvit.evaluate.suites.suites import SUITES
from hybridvit.evaluate.suites.summary import verdict
from hybridvit.report.content import Curve, Report, Table
from hybridvit.report.html import write_report

MOST_CLASSES = 20  # of a suite, the worst


def write_page(path: Path, rows: Sequence[dict[str, Any]], results: Sequence[PartResult], *, part_of_it: str) -> None:
    """Write the page atomically; `part_of_it` says which part of the images was answered, empty for all."""
    files = list(dict.fromkeys(row["file"] for row in rows))
    reference = [result for result in results if result.subject.path == files[0]]
    differences = [_against_first(rows, files[0])] if len(files) > 1 else []
    tables = [*differences, _details(rows), _calibration(rows), *(_corruptions(row) for row in rows if "errors" in row)]
    tables += [_classes(result) for result in reference if not result.part.corruption]
    charts = [_reliability(result) for result in results if not result.part.corruption]
    report = Report(
        title=f"Robustness of {_short(files[0])}{part_of_it}",
        lead=f"{len(files)} files on the same images; differences are to {_short(files[0])}, image by image."
        if len(files) > 1
        else "One file; a second one beside it would be compared with it image by image.",
        results=_accuracies(rows),
        tables=tables,
        charts=charts,
        charts_title="Calibration: accuracy by confidence, as it is and as it would be",
        facts=[(_short(file), file) for file in files],
    )
    write_report(report, path)


def _accuracies(rows: Sequence[dict[str, Any]]) -> Table:
    body = []
    for row in rows:
        low, high = (f"{100 * end:.2f}" for end in row["top1_interval"])
        mce = f"{row['mce']:.2f}" if "mce" in row else "–"
        values = ", ".join(f"{value:g} ({source})" for source, value in row["published"].items()) or "–"
        top1 = f"{100 * row['top1']:.2f}"
        images = f"{row['num_images']:,}"
        names = (_title(row["suite"]), _short(row["file"]), row["protocol"])
        body.append((*names, images, top1, f"{low} to {high}", mce, values))
    return Table(
        title="Accuracy",
        head=("Suite", "File", "Protocol", "Images", "Top-1 %", "95 % interval", "mCE %", "Published %"),
        rows=body,
        note="Top-1 of suites of corruptions is the mean over all corruptions and severities. mCE is the mean over 15 "
        "corruptions of 100 · the summed errors over AlexNet's, lower is better; its published values are mCE too.",
    )


def _against_first(rows: Sequence[dict[str, Any]], first: str) -> Table:
    body = []
    for row in rows:
        if against := row.get("against_first"):
            low, high = (f"{100 * end:+.2f}" for end in against["interval"])
            p = f"{against['mcnemar_p']:.2g}" if "mcnemar_p" in against else "–"
            names = (_title(row["suite"]), _short(row["file"]), row["protocol"])
            body.append((*names, f"{100 * against['top1']:+.2f}", f"{low} to {high}", p, verdict(against)))
    return Table(
        title=f"Difference to {_short(first)}, in points of top-1",
        head=("Suite", "File", "Protocol", "Difference", "95 % interval", "McNemar's p", "Verdict"),
        rows=body,
    )


def _details(rows: Sequence[dict[str, Any]]) -> Table:
    body = []
    for row in rows:
        everywhere = f"{100 * row['top1_unrestricted']:.2f}" if row["suite"] in ("a", "r") else "–"
        interval = " to ".join(f"{end:.2f}" for end in row["mce_interval"]) if "mce" in row else "–"
        relative = f"{row['relative_mce']:.2f}" if "relative_mce" in row else "–"
        skipped, top5 = f"{row['num_skipped']:,}", f"{100 * row['top5']:.2f}"
        names = (_title(row["suite"]), _short(row["file"]), row["protocol"])
        body.append((*names, skipped, top5, everywhere, interval, relative))
    return Table(
        title="How it was measured",
        head=(
            *("Suite", "File", "Protocol", "Skipped", "Top-5 %", "Argmax over 1,000 %"),
            *("95 % interval of mCE", "Relative mCE %"),
        ),
        rows=body,
        note="A and R are judged among their 200 classes; the column beside takes the most probable of all 1,000.",
    )


def _calibration(rows: Sequence[dict[str, Any]]) -> Table:
    def percent(row: dict[str, Any], name: str) -> str:
        return f"{100 * row[name]:.2f}"

    def plain(row: dict[str, Any], name: str) -> str:
        return "–" if row.get(name) is None else f"{row[name]:.3f}"

    names = ("ece", "ece_equal_mass", "rms_calibration")
    return Table(
        title="Calibration",
        head=("Suite", "File", "Protocol", "ECE %", "ECE, equal mass %", "RMS %", "NLL", "Brier", "Best temperature"),
        rows=[
            (
                _title(row["suite"]),
                _short(row["file"]),
                row["protocol"],
                *(percent(row, name) for name in names),
                *(plain(row, name) for name in ("nll", "brier", "temperature")),
            )
            for row in rows
        ],
        note="Of the answer given, in 15 bins. The temperature is the one of the least NLL on these very images, so it "
        "says how far confidence is off, not how good it could be made; 0.5 and 8 are the ends of what is tried.",
    )


def _corruptions(row: dict[str, Any]) -> Table:
    errors = row["errors"]
    severities = sorted({severity for found in errors.values() for severity in found})
    body = [
        (
            name.replace("_", " "),
            *(f"{100 * found[each]:.1f}" if each in found else "–" for each in severities),
            f"{100 * sum(found.values()) / len(found):.1f}",
            f"{row['ce'][name]:.1f}" if name in row.get("ce", {}) else "–",
        )
        for name, found in errors.items()
    ]
    return Table(
        title=f"{_title(row['suite'])}, {row['protocol']}: errors of {_short(row['file'])} in %",
        head=("Corruption", *(f"Severity {each}" for each in severities), "Mean", "CE %"),
        rows=body,
        heat=tuple(range(1, len(severities) + 1)),
    )


def _reliability(result: PartResult) -> Curve:
    answers = result.answers()
    found = reliability(answers.confidence, answers.top1)
    return Curve(
        title=f"{_title(result.part.suite)} ({result.protocol}): {_short(result.subject.path)}",
        x_label="confidence",
        y_label="accuracy",
        lines={"this file": [point[:2] for point in found], "calibrated": [(0.0, 0.0), (1.0, 1.0)]},
        from_zero=True,
        shows_last=False,
    )


def _classes(result: PartResult) -> Table:
    answers, part = result.answers(), result.part
    names = subset_synsets(part.subset) if part.subset else result.subject.card.class_names or synsets()
    truth = part.right[answers.samples, 0]
    rows = []
    for label in np.unique(truth):
        members = truth == label
        wrong = answers.answer[members & ~answers.top1]
        number, right = int(members.sum()), int(answers.top1[members].sum())
        mistake = int(np.bincount(wrong).argmax()) if len(wrong) else None
        rows.append((right / number, int(label), number, right, mistake, int((wrong == mistake).sum())))
    body = []
    for accuracy, label, number, right, mistake, times in sorted(rows)[:MOST_CLASSES]:
        low, high = wilson(right, number)
        taken = "–" if mistake is None else f"{in_words([names[mistake]])[0]} ({times})"
        interval = f"{100 * low:.0f} to {100 * high:.0f}"
        body.append((in_words([names[label]])[0], f"{number:,}", f"{100 * accuracy:.1f}", interval, taken))
    return Table(
        title=f"{_title(part.suite)} ({result.protocol}): the classes that {_short(result.subject.path)} is worst at",
        head=("Class", "Images", "Top-1 %", "95 % interval", "Taken for (times)"),
        rows=body,
    )


def _title(suite: str) -> str:
    return SUITES[suite].title if suite in SUITES else suite


def _short(file: str) -> str:
    return Path(file).name
