"""The rows of a result file as a reader wants them: which are comparable, which are left out, and why."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridvit.errors import plural
from hybridvit.export.targets import EXPORTERS
from hybridvit.machine.facts import MachineCard
from hybridvit.report.content import Table

Record = Mapping[str, Any]  # one measurement, as `hybridvit bench --json` writes it
Setup = tuple[Any, ...]  # what latencies must have in common to be compared

RUNTIME_NAMES = {"torch": "PyTorch", "torch-compile": "PyTorch compiled"} | {
    exporter.runtime or target: exporter.title for target, exporter in EXPORTERS.items()
}
MOST_NAMED = 12  # models in one sentence


def setup_of(record: Record) -> Setup:
    """Runtime, precision, batch, device and threads."""
    return tuple(record.get(key) for key in ("runtime", "precision", "batch", "device", "threads"))


def setup_name(setup: Setup) -> str:
    """The setup in words."""
    return ", ".join(part for part in _words(setup) if part)


def setup_names(setups: Sequence[Setup]) -> list[str]:
    """The setups in as few words as tell them apart: of each the runtime, and what is not the same in all."""
    columns = list(zip(*map(_words, setups), strict=True))
    differing = [index == 0 or len(set(column)) > 1 for index, column in enumerate(columns)]
    return [
        ", ".join(word for word, kept in zip(_words(setup), differing, strict=True) if kept and word)
        for setup in setups
    ]


def _words(setup: Setup) -> list[str]:
    runtime, precision, batch, device, threads = setup
    on_cpu = not str(device).startswith("cuda")
    return [
        RUNTIME_NAMES.get(runtime, str(runtime)),
        str(precision or ""),
        f"batch {batch}",
        "CPU" if device == "cpu" else str(device or ""),
        plural(threads, "thread") if threads and on_cpu else "",
    ]


def by_setup(records: Iterable[Record]) -> dict[Setup, list[Record]]:
    """The records of each setup, in the order of the file."""
    groups: dict[Setup, list[Record]] = {}
    for record in records:
        groups.setdefault(setup_of(record), []).append(record)
    return groups


def as_deployed(records: Sequence[Record]) -> list[Record]:
    """Without the training form of what is there folded too."""
    folded = {_place(record) for record in records if record.get("form") == "folded"}
    return [record for record in records if record.get("form") == "folded" or _place(record) not in folded]


def _place(record: Record) -> Setup:
    return (record["model"], record.get("image_size"), *setup_of(record))


def top1_of(record: Record) -> float | None:
    """The published accuracy in %, if there is one."""
    value = record.get("top1")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def side_px(record: Record) -> float:
    """The side of a square of as many pixels as the image has."""
    height, width = (int(side) for side in str(record["image_size"]).split("x"))
    return math.sqrt(height * width)


def sources_of(records: Iterable[Record]) -> dict[str, int]:
    """The number under which each source of an accuracy is quoted, from 1."""
    texts = [record.get("top1_source") or "source not given" for record in records if top1_of(record) is not None]
    return {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}


def sources_table(records: Sequence[Record], sources: Mapping[str, int]) -> Table:
    """Each source once, with the models whose accuracy it states."""
    rows = []
    for text, number in sources.items():
        models = {
            record["model"]: None
            for record in records
            if top1_of(record) is not None and (record.get("top1_source") or "source not given") == text
        }
        rows.append((f"[{number}]", text, ", ".join(models)))
    return Table(title="Sources of the accuracies", head=("", "Source", "Models"), rows=rows)


def numbers_table(records: Sequence[Record], sources: Mapping[str, int]) -> Table:
    """Every row that was measured, drawn or not."""
    head = (
        "Model", "Form", "Runtime", "Precision", "Batch", "Image", "Median ms", "95 % interval", "p90 ms", "Images/s",
        "Top-1 %", "Weights", "Source", "Parameters M", "Multiply-adds G",
    )  # fmt: skip
    rows = [
        (
            str(record["model"]), str(record.get("form", "")),
            RUNTIME_NAMES.get(record["runtime"], str(record["runtime"])),
            str(record.get("precision", "")), str(record.get("batch", "")), str(record.get("image_size", "")),
            f"{record['median_ms']:.2f}", interval_text(record), _number(record, "p90_ms", 1, 2),
            _number(record, "images_per_s", 1, 1), _number(record, "top1", 1, 1), str(record.get("top1_of") or "–"),
            f"[{sources[record.get('top1_source') or 'source not given']}]" if top1_of(record) is not None else "–",
            _number(record, "parameters", 1e6, 1), _number(record, "multiply_adds", 1e9, 2),
        )
        for record in records
    ]  # fmt: skip
    return Table(title="All numbers", head=head, rows=rows)


def _number(record: Record, key: str, unit: float, decimals: int) -> str:
    value = record.get(key)
    return f"{value / unit:,.{decimals}f}" if isinstance(value, int | float) else "–"


def interval_text(record: Record) -> str:
    """The 95 % interval of the median, in ms."""
    low, high = record.get("low_ms"), record.get("high_ms")
    return f"{low:.2f}–{high:.2f}" if low is not None and high is not None else "–"


def interval_of(record: Record) -> tuple[float, float] | None:
    """The 95 % interval of the median, in ms, if it was stated."""
    low, high = record.get("low_ms"), record.get("high_ms")
    return (low, high) if low and high else None


def notes_of(records: Sequence[Record], drawn: Sequence[Record], skipped: Sequence[Record]) -> list[str]:
    """What was left out of the charts, with the reason, in sentences."""
    notes = []
    unknown = [record for record in drawn if top1_of(record) is None]
    if unknown:
        notes.append(
            f"Without a published accuracy, so not in the charts of accuracy: {len(unknown)} of {len(drawn)} rows "
            f"({named(record['model'] for record in unknown)})."
        )
    if len(drawn) < len(records):
        notes.append(
            f"Only in the table of all numbers: the training form where the folded one is drawn "
            f"(rows: {len(records) - len(drawn)})."
        )
    reasons: dict[str, list[str]] = {}
    for record in skipped:
        place = [str(record[key]) for key in ("model", "runtime", "precision", "image_size") if record.get(key)]
        place += [f"batch {record['batch']}"] if record.get("batch") else []
        reasons.setdefault(str(record.get("reason") or "no reason given").rstrip("."), []).append(" ".join(place))
    notes += [f"Skipped: {named(places)}: {reason}." for reason, places in reasons.items()]
    return notes


def named(names: Iterable[str]) -> str:
    """Names in a sentence, each once, the first dozen of them."""
    unique = list(dict.fromkeys(names))
    more = [f"and {len(unique) - MOST_NAMED} more"] if len(unique) > MOST_NAMED else []
    return ", ".join(unique[:MOST_NAMED] + more)


def facts_of(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings and conditions, each in one line."""
    return [
        (title, ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in _told(values)))
        for title, values in (("Settings", result.get("settings")), ("Conditions", result.get("conditions")))
        if values
    ]


def _told(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Those that say something: not unknown, and no empty text or list."""
    return [(name, value) for name, value in values.items() if value not in (None, "", [])]


def machine_of(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine card in lines; one written by another version as it stands."""
    card = result.get("machine") or {}
    try:
        return MachineCard(**card).lines()
    except (TypeError, AttributeError, ValueError):
        return [(str(name).replace("_", " "), _plain(value)) for name, value in card.items()]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    value = round(value, 3) if isinstance(value, float) else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
