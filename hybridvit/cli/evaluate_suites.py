"""`hybridvit evaluate FILES... --suites ...`: how often are they right where images are unlike those of training?"""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridvit.atomic import write_text
from hybridvit.cli.output import check_outputs
from hybridvit.cli.progress import remark
from hybridvit.cli.table import aligned
from hybridvit.errors import UsageError
from hybridvit.evaluate.suites.options import SuiteOptions
from hybridvit.loading import Device

if TYPE_CHECKING:
    from hybridvit.data.encoded import OnBadImage
    from hybridvit.evaluate.suites.layout import Part
    from hybridvit.evaluate.suites.run import Subject
    from hybridvit.evaluate.suites.suites import Suite


def evaluate_suites(
    files: Sequence[str],
    options: SuiteOptions,
    *,
    batch: int,
    workers: int,
    on_bad_image: "OnBadImage",
    device: Device,
    trust_changed: bool,
    as_json: bool,
) -> None:
    """Answer all suites with all files, write results.json and the report, and print the table.

    Raises as `hybridvit.loading.open_runner`, `open_suite` and `evaluate_parts`.
    """
    from hybridvit.evaluate.suites.page import write_page
    from hybridvit.evaluate.suites.predictions import write_predictions
    from hybridvit.evaluate.suites.run import evaluate_parts
    from hybridvit.evaluate.suites.suites import named_suites
    from hybridvit.evaluate.suites.summary import summary

    chosen = named_suites(options.suites or (), options.root)
    if len(set(files)) < len(files):
        raise UsageError("One of the files is given twice. Give each once: the first is what others are compared with.")
    folder = options.folder or Path("runs/evaluate") / Path(files[0]).name.partition(".")[0]
    check_outputs(options.predictions, options.report)
    with ExitStack() as stack:
        subjects = [_subject(path, device, trust_changed, stack) for path in files]
        parts = _parts(chosen, subjects, options, on_bad_image)
        results = evaluate_parts(
            subjects,
            parts,
            folder,
            protocol=options.protocol,
            batch_size=batch,
            workers=workers,
            force=options.force,
            say=remark,
        )
    whole = options.share == 1 and options.images_per_class is None
    rows = summary(results, whole=whole)
    found = {"suites": rows, "share": options.share, "images_per_class": options.images_per_class}
    write_text(folder / "results.json", json.dumps(found) + "\n")
    page = options.report or folder / "report.html"
    write_page(page, rows, results, part_of_it=said_share(options))
    if options.predictions is not None:
        write_predictions(options.predictions, results)
    if as_json:
        print(json.dumps(found))
        return
    print(aligned(table(rows), left=3))
    remark(f"The report is {page}{said_share(options)}")


def said_share(options: SuiteOptions) -> str:
    """What part of the images was answered; empty where it is all of them."""
    parts = [f"{100 * options.share:g} % of the images"] if options.share < 1 else []
    parts += [f"at most {options.images_per_class} images a class"] if options.images_per_class else []
    return f" ({', '.join(parts)})" if parts else ""


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


def _subject(path: str, device: Device, trust_changed: bool, stack: ExitStack) -> "Subject":
    from hybridvit.digest import sha256_of
    from hybridvit.evaluate.run import answering
    from hybridvit.evaluate.suites.run import Subject
    from hybridvit.export.runners import ExportedRunner, TorchRunner
    from hybridvit.export.seal import KEY
    from hybridvit.loading import is_exported, open_runner
    from hybridvit.task import find_task

    runner = open_runner(path, device=device, trust_changed=trust_changed and is_exported(path))
    shared: Any = {"path": path, "card": runner.card, "runtime": runner.runtime}
    if isinstance(runner, TorchRunner):
        answer = stack.enter_context(answering(runner.model, find_task(runner.card.task)))
        return Subject(**shared, digest=sha256_of(Path(path)), answer=answer, takes_size=lambda size: True)
    assert isinstance(runner, ExportedRunner), "what is no PyTorch model is an exported file"
    digest = runner.metadata[KEY] if not Path(path).is_file() else sha256_of(Path(path)) + runner.metadata.get(KEY, "")
    return Subject(
        **shared,
        digest=digest,
        answer=lambda batch: runner(batch.inputs),
        takes_size=runner.spec.takes_size,
    )


def _parts(
    chosen: "Sequence[tuple[Suite, Path]]",
    subjects: "Sequence[Subject]",
    options: SuiteOptions,
    on_bad_image: "OnBadImage",
) -> "list[Part]":
    """All parts of all suites, every folder checked before an image is decoded."""
    from hybridvit.evaluate.suites.layout import Choice, open_suite
    from hybridvit.evaluate.suites.protocol import CLEAN_OF_C
    from hybridvit.evaluate.suites.run import check_subject
    from hybridvit.evaluate.suites.suites import is_own

    suites = [suite for suite, _ in chosen]
    for subject in subjects:
        check_subject(subject, suites)
    names = subjects[0].card.class_names
    other = next((each.path for each in subjects if each.card.class_names != names), None)
    if other is not None and any(map(is_own, suites)):
        raise UsageError(f"{other} has other classes than {subjects[0].path}. Compare files with the same classes.")
    choice = Choice(
        share=options.share,
        images_per_class=options.images_per_class,
        partial=options.partial,
        only=tuple(options.only or ()),
        on_bad_image=on_bad_image,
    )
    parts = [part for suite, folder in chosen for part in open_suite(suite, folder, names, choice, say=remark)]
    takes_all = all(subject.takes_size((224, 224)) for subject in subjects)
    clean = next((part for part in parts if part.suite == "imagenet"), None)
    if clean is not None and takes_all and any(part.suite == "c" for part in parts):
        parts.append(dataclasses.replace(clean, suite=CLEAN_OF_C, title=CLEAN_OF_C))
    return parts
