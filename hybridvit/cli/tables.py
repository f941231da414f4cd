"""`hybridvit tables`: the tables of the papers, with a column for this machine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridvit.atomic import write_text
from hybridvit.cli.output import check_outputs, ended
from hybridvit.cli.progress import status_line
from hybridvit.errors import HybridViTError, UsageError, plural
from hybridvit.peers.paper_row import PaperTable
from hybridvit.peers.papers import find_tables, models_by_size
from hybridvit.stderr import remark

ROUNDS = 30
FEW = 10  # so many models are counted within seconds


def tables(
    *,
    names: list[str] | None = None,
    measured: list[str] | None = None,
    runtime: str = "onnxruntime",
    rounds: int | None = None,
    no_measuring: bool = False,
    json_file: Path | None = None,
    output: Path | None = None,
) -> int:
    """Write the tables of both papers as Markdown, with what this machine does beside the published figures.

    fastvit-2 (architectures), fastvit-5 and -6 (ImageNet-1k, plain and distilled), fastervit-1 and -3 (ImageNet-1k and
    pre-trained on 21k); of robustness fastvit-7, fastervit-s2 and timm-robustness, as published: `hybridvit evaluate
    --suites` measures that. Parameters and multiply-adds are counted; latencies are of batch 1, folded, fp32. Rows come
    from files that `hybridvit bench --json` wrote, and what these lack is measured: all tables are some 80 models
    of up to 1.4 billion parameters, which takes its time. What cannot be measured shows the reason.

    Examples:
      hybridvit tables --names fastvit-6 --output distilled.md
      hybridvit tables --measured results.json --no_measuring
      hybridvit tables --names fastvit-5 --runtime openvino --json_file rows.json --output table5.md

    Args:
        names: fastvit-2, fastvit-5, fastvit-6, fastvit-7, fastervit-1, fastervit-3, fastervit-s2, timm-robustness; all
            by default.
        measured: files with results of this machine.
        runtime: torch, onnxruntime, openvino ... as for `hybridvit bench`.
        rounds: rounds of what is measured, at least 8; by default 30.
        no_measuring: show what the files have, and "-" elsewhere.
        json_file: file for the results, to be given as --measured next time.
        output: file for the Markdown; printed by default.
    """
    from hybridvit.charts.tables import render_tables  # importing it imports torch
    from hybridvit.measure.candidate import RUNTIMES, check_names
    from hybridvit.measure.latency import check_rounds
    from hybridvit.measure.result import read_result

    chosen = find_tables(names)
    check_names("runtime", [runtime], RUNTIMES)
    check_outputs(json_file, output)
    if no_measuring and rounds is not None:
        raise UsageError(f"--rounds is {rounds}, but --no_measuring is set, so there are none. Leave one of them out.")
    if rounds is not None:
        check_rounds(rounds)
    read = [Path(path).resolve() for path in measured or ()]
    if json_file is not None and json_file.exists() and json_file.resolve() not in read:
        raise UsageError(
            f"{json_file} exists, and its results would be lost. Give it as --measured too, to go on from it, or name "
            "another."
        )
    result = merged([read_result(path) for path in measured or ()])
    if json_file is not None:
        write_text(json_file, json.dumps(result, ensure_ascii=False) + "\n")
    is_complete = True
    if not no_measuring:
        for side, models in missing(chosen, result, runtime).items():
            remark(f"Measuring {plural(len(models), 'model')} at {side} px ...")
            new = _measured_or_skipped(models, runtime=runtime, side=side, rounds=ROUNDS if rounds is None else rounds)
            result = merged([result, new])
            if json_file is not None:
                write_text(json_file, json.dumps(result, ensure_ascii=False) + "\n")
            if not (is_complete := new.get("complete", True)):
                break  # the table shows what was measured until then
    text = render_tables(chosen, result, _counted(chosen, result), runtime=runtime)
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
    return ended(is_complete=is_complete)


def measured_rows(models: Sequence[str], *, runtime: str, side: int, rounds: int) -> dict[str, Any]:
    """Records of `models` at batch 1 and of those skipped, as a result of `hybridvit bench` has them."""
    from hybridvit.measure.bench import bench
    from hybridvit.measure.options import BenchOptions

    with status_line(in_logs=True) as show:
        options = BenchOptions(runtimes=[runtime], image_size=[(side, side)], rounds=rounds, processes=1)
        return bench(models, options, show=show).to_dict()


def _measured_or_skipped(models: Sequence[str], *, runtime: str, side: int, rounds: int) -> dict[str, Any]:
    """As `measured_rows`, but all models count as skipped where none could be measured. Raises only UsageError."""
    try:
        return measured_rows(models, runtime=runtime, side=side, rounds=rounds)
    except UsageError:
        raise
    except HybridViTError as error:
        shared = {"runtime": runtime, "precision": "fp32", "batch": 1, "image_size": f"{side}x{side}"}
        return {"bench": [], "skipped": [{"model": model, **shared, "reason": str(error)} for model in models]}


def missing(chosen: list[PaperTable], result: Mapping[str, Any], runtime: str) -> dict[int, list[str]]:
    """Names by side in pixels of the models that `result` has neither measured nor skipped."""
    known = {
        (each["model"], each["image_size"])
        for each in (*result["bench"], *result["skipped"])
        if each["runtime"] == runtime and each["precision"] == "fp32"
    }
    absent = {
        side: [model for model in models if (model, f"{side}x{side}") not in known]
        for side, models in models_by_size(chosen).items()
    }
    return {side: models for side, models in absent.items() if models}


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several results of one machine as one; where several have the same candidate, the last counts.

    Raises UsageError if they are of different machines.
    """
    from hybridvit.measure.result import key

    records: dict[Any, Any] = {}
    skipped: list[Any] = []
    whole: dict[str, Any] = {"format": 1, "machine": {}}
    for result in results:
        before, machine = whole["machine"], result.get("machine", {})
        for part in ("processor", "gpu"):
            if before and machine and before.get(part) != machine.get(part):
                raise UsageError(
                    f"The results are of two machines ('{before.get(part)}' and '{machine.get(part)}'), but the rows "
                    "of a table must be of one. Give the files of one machine."
                )
        whole |= {name: result[name] for name in ("machine", "settings", "conditions") if result.get(name)}
        records |= {key(record): record for record in result["bench"]}
        skipped += result.get("skipped", [])
    return whole | {"bench": list(records.values()), "skipped": skipped}


def _counted(chosen: list[PaperTable], result: Mapping[str, Any]) -> dict[tuple[str, int], tuple[int, int]]:
    """Parameters and multiply-adds of models that no record has; models that cannot be built are left out."""
    from hybridvit.measure.counts import counted
    from hybridvit.measure.subject import find_subject

    recorded = {(each["model"], each["image_size"]) for each in result["bench"] if each["multiply_adds"]}
    wanted = [(model, side) for side, models in models_by_size(chosen).items() for model in models]
    wanted = [(model, side) for model, side in wanted if (model, f"{side}x{side}") not in recorded]
    wanted += [(row.model, row.image_size_px) for table in chosen for row in table.architectures]
    if len(wanted) > FEW:
        remark(f"Counting {len(wanted)} models ...")
    counts = {}
    for model, side in wanted:
        found = counted(find_subject(model), (side, side))
        if found is not None:
            counts[model, side] = found.parameters, found.multiply_adds
    return counts
