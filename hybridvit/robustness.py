"""Robustness suites for programs: what `hybridvit evaluate FILES... --suites ...` does."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from hybridvit.atomic import check_folder, write_text
from hybridvit.data.encoded import OnBadImage
from hybridvit.data.scan import Say, quiet, subfolders
from hybridvit.digest import sha256_of
from hybridvit.errors import DatasetError, UsageError
from hybridvit.evaluate.run import answering
from hybridvit.evaluate.suites.layout import Choice, Part, open_suite
from hybridvit.evaluate.suites.options import SuiteOptions
from hybridvit.evaluate.suites.page import write_page
from hybridvit.evaluate.suites.predictions import check_predictions, write_predictions
from hybridvit.evaluate.suites.protocol import clean_of_c
from hybridvit.evaluate.suites.run import Subject, check_subject, evaluate_parts
from hybridvit.evaluate.suites.suites import Suite, is_own, named_suites
from hybridvit.evaluate.suites.summary import Row, summary
from hybridvit.export.embeddings import TextRunner
from hybridvit.export.runners import ExportedRunner, TorchRunner
from hybridvit.export.seal import KEY
from hybridvit.hub import local_file
from hybridvit.loading import Device, is_exported, open_runner
from hybridvit.models.registry import num_outputs
from hybridvit.task import find_task


class SuiteAnswers(NamedTuple):
    """What came out: JSON values, a row for each suite and file, and the page that shows them."""

    rows: list[Row]
    page: Path


def evaluate_suites(
    files: Sequence[str],
    options: SuiteOptions,
    *,
    batch: int = 32,
    workers: int = 0,
    on_bad_image: OnBadImage = "error",
    device: Device = "auto",
    trust_changed: bool = False,
    zero_shot: str | os.PathLike[str] | None = None,
    say: Say = quiet,
) -> SuiteAnswers:
    """Answer all suites with all files, the first being the reference; write results.json, the report and predictions.

    All of it lies in `options.folder`, by default runs/evaluate/ and the path of the first file; what is there from
    before is not computed again. With `zero_shot`, a file of texts (docs/mci.md), image towers are asked, each for the
    same classes. `say` is told of what is unusual and of each part. Raises as
    `hybridvit.loading.open_runner`, `open_suite` and `evaluate_parts`.
    """
    options.check()
    chosen = named_suites(options.suites or (), options.root)
    if len(set(files)) < len(files):
        raise UsageError("One of the files is given twice. Give each once: the first is what others are compared with.")
    folder = options.folder or _folder_of(files[0])
    check_folder(folder)
    if options.predictions is not None:
        check_predictions(options.predictions)
    with ExitStack() as stack:
        subjects = [_subject(path, device, trust_changed, zero_shot, stack) for path in files]
        parts = _parts(chosen, subjects, options, on_bad_image, say)
        results = evaluate_parts(
            subjects,
            parts,
            folder,
            protocol=options.protocol,
            batch_size=batch,
            workers=workers,
            force=options.force,
            say=say,
        )
    rows = summary(results, whole=not options.said_share)
    found = {"suites": rows, "share": options.share, "images_per_class": options.images_per_class}
    write_text(folder / "results.json", json.dumps(found) + "\n")
    page = options.report or folder / "report.html"
    write_page(page, rows, results, part_of_it=options.said_share)
    if options.predictions is not None:
        write_predictions(options.predictions, results)
    return SuiteAnswers(rows, page)


def _folder_of(file: str) -> Path:
    """Runs give their files one name, so their folders are in it too."""
    within = re.sub(r"^([A-Za-z]+:)?[/\\]*", "", file)
    return Path("runs/evaluate", *(part for part in Path(within).parts if part != ".."))


def _subject(
    path: str, device: Device, trust_changed: bool, zero_shot: str | os.PathLike[str] | None, stack: ExitStack
) -> Subject:
    file = local_file(path)
    runner = open_runner(file, device=device, trust_changed=trust_changed and is_exported(file), zero_shot=zero_shot)
    texts = "" if zero_shot is None else sha256_of(Path(zero_shot))
    shared: Any = {"path": path, "card": runner.card, "runtime": runner.runtime}
    if isinstance(runner, TorchRunner):
        answer = stack.enter_context(answering(runner.model, find_task(runner.card.task)))
        return Subject(**shared, digest=sha256_of(file) + texts, answer=answer, takes_size=lambda size: True)
    inner = runner.inner if isinstance(runner, TextRunner) else runner
    assert isinstance(inner, ExportedRunner), "what is no PyTorch model is an exported file"
    digest = inner.metadata[KEY] if not file.is_file() else sha256_of(file) + inner.metadata.get(KEY, "")
    return Subject(
        **shared,
        digest=digest + texts,
        answer=lambda batch: runner(batch.inputs),
        takes_size=inner.spec.takes_size,
    )


def _parts(
    chosen: Sequence[tuple[Suite, Path]],
    subjects: Sequence[Subject],
    options: SuiteOptions,
    on_bad_image: OnBadImage,
    say: Say,
) -> list[Part]:
    """All parts of all suites, every folder checked before an image is decoded."""
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
        stored=options.stored,
    )
    if (options.only or options.partial) and all(suite.layout in ("classes", "real") for suite in suites):
        what = "only" if options.only else "partial"
        raise UsageError(
            f"--{what} is of suites of corruptions, but none is asked for. Add one, such as c=imagenet-c, or leave "
            "it out."
        )
    parts = [
        part
        for suite, folder in chosen
        for part in open_suite(suite, folder, names or _named_by(suite, folder, subjects[0]), choice, say=say)
    ]
    clean = next((part for part in parts if part.suite == "imagenet"), None)
    if clean is not None and any(part.suite == "c" for part in parts):
        parts.append(clean_of_c(clean))
    return parts


def _named_by(suite: Suite, folder: Path, subject: Subject) -> tuple[str, ...]:
    """The classes of a file that names none: the folders of one's own suite, in their order, as many as it answers.

    Raises DatasetError for another number of them.
    """
    if not is_own(suite) or not folder.is_dir():
        return ()
    names, num_classes = tuple(subfolders(str(folder))), num_outputs(subject.card)
    if len(names) != num_classes:
        raise DatasetError(
            f"{folder} has {len(names)} classes, but {subject.path} answers with {num_classes} classes and does not "
            "name them. Give images of exactly these classes, in the order of their names."
        )
    return names
