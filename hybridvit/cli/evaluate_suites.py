"""`hybridvit evaluate FILES... --suites ...`: how often are they right where images are unlike those of training?"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hybridvit.cli.output import check_outputs
from hybridvit.cli.table import aligned
from hybridvit.evaluate.suites.options import SuiteOptions
from hybridvit.loading import Device
from hybridvit.stderr import remark

if TYPE_CHECKING:
    from hybridvit.data.encoded import OnBadImage


def evaluate_suites(
    files: Sequence[str],
    options: SuiteOptions,
    *,
    batch: int,
    workers: int,
    on_bad_image: "OnBadImage",
    device: Device,
    trust_changed: bool,
    zero_shot: str | None,
    as_json: bool,
) -> None:
    """Answer all suites with all files, and print the table. Raises as `hybridvit.robustness.evaluate_suites`."""
    from hybridvit.robustness import evaluate_suites as answered

    check_outputs(options.predictions, options.report)
    rows, page = answered(
        files,
        options,
        batch=batch,
        workers=workers,
        on_bad_image=on_bad_image,
        device=device,
        trust_changed=trust_changed,
        zero_shot=zero_shot,
        say=remark,
    )
    if as_json:
        print(json.dumps({"suites": rows, "share": options.share, "images_per_class": options.images_per_class}))
        return
    print(aligned(table(rows), left=3))
    remark(f"The report is {page}{options.said_share}")


def table(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows in text: accuracy with its interval, calibration, mCE, the difference to the first, published values."""
    head = ("suite", "file", "protocol", "images", "top-1 %", "95 %", "top-5 %", "ECE %", "mCE %", "against first")
    return [(*head, "published"), *map(_line, rows)]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    from hybridvit.evaluate.suites.summary import verdict

    low, high = row["top1_interval"]
    against = row.get("against_first")
    difference = "–"
    if against is not None:
        ends = " to ".join(f"{100 * end:+.2f}" for end in against["interval"])
        difference = f"{100 * against['top1']:+.2f} ({ends}, {verdict(against)})"
    return (
        row["suite"],
        row["file"],
        row["protocol"],
        f"{row['num_images']:,}" + (f" × {row['num_parts']}" if "num_parts" in row else ""),
        f"{100 * row['top1']:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{100 * row['top5']:.2f}",
        f"{100 * row['ece']:.2f}",
        f"{row['mce']:.2f}" if "mce" in row else "–",
        difference,
        ", ".join(f"{value:g} ({source})" for source, value in row["published"].items()) or "–",
    )
