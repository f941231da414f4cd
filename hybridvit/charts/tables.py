"""The papers' tables as Markdown: what was published beside what this machine did."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridvit.models.registry import VARIANTS
from hybridvit.peers.paper_row import ArchitectureRow, PaperRow, PaperTable, RobustnessRow

Counted = Mapping[tuple[str, int], tuple[int, int]]
"""Parameters and multiply-adds of folded models, by name and side in pixels."""

_NOTHING = "-"
_SUITES = {
    "imagenet": "clean",
    "v2-matched": "V2",
    "real": "ReaL",
    "c": "C: mCE",
    "a": "A",
    "r": "R",
    "sketch": "Sketch",
}
_MIXER_NAMES = {"repmixer": "RepMixer", "attention": "Attention", "pooling": "pooling"}


def render_tables(tables: Sequence[PaperTable], result: Mapping[str, Any], counted: Counted, *, runtime: str) -> str:
    """Markdown of `tables`, beside the records of `result` (as `hybridvit bench --json` writes) that are of `runtime`.

    Of several batches the latencies take 1, the throughputs the largest. What has no record shows "-", and the reason
    below the table. `counted` serves where there is no record, and for the table of architectures.
    """
    records = [record for record in result.get("bench", []) if _fits(record, runtime)]
    parts = ["# Tables of the papers, and this machine", _about(result, records, runtime)]
    for table in tables:
        parts.append(f"## {table.title}\n\n{table.source}.")
        if table.architectures:
            parts.append(_architectures(table.architectures, counted))
            continue
        if table.robustness:
            parts.append(_robustness(table.robustness))
            continue
        pairs = [(row, record_of(row, table, records, runtime)) for row in table.rows]
        parts.append(_results(table, pairs, counted))
        parts.append("\n".join(f"- {note}" for note in _notes(pairs, result, runtime)))
    return "\n\n".join(part for part in parts if part) + "\n"


def record_of(
    row: PaperRow, table: PaperTable, records: Iterable[Mapping[str, Any]], runtime: str
) -> Mapping[str, Any] | None:
    """The record of a row: folded, fp32, of that size; batch 1 for a table of latencies, else the largest."""
    size = f"{row.image_size_px}x{row.image_size_px}"
    found = [
        record
        for record in records
        if _fits(record, runtime)
        and (record["model"], record["image_size"]) == (row.model, size)
        and (table.throughput or record["batch"] == 1)
    ]
    return max(found, key=lambda record: record["batch"], default=None)


def _fits(record: Mapping[str, Any], runtime: str) -> bool:
    return (record["runtime"], record["precision"], record["form"]) == (runtime, "fp32", "folded")


def _about(result: Mapping[str, Any], records: Sequence[Mapping[str, Any]], runtime: str) -> str:
    lines = ["Published figures are as printed. Parameters and multiply-adds are counted on the folded model."]
    if records:
        machine = result.get("machine", {})
        devices = {record["device"] for record in records}
        place = machine.get("gpu" if devices == {"cuda"} else "processor", "a machine that is not described")
        threads = "/".join(sorted({str(record["threads"]) for record in records}, key=int))
        rounds = sorted({record["rounds"] for record in records})
        lines.append(
            f"This machine: {place}; {runtime}, fp32, {threads} threads, {'/'.join(map(str, rounds))} rounds; medians "
            "with their 95 % interval. Other devices than the papers': compare ratios between rows, not milliseconds."
        )
    else:
        lines.append("Nothing was measured on this machine.")
    return "\n".join(lines)


def _results(table: PaperTable, pairs: Sequence[tuple[PaperRow, Mapping[str, Any] | None]], counted: Counted) -> str:
    published = _published_speeds(table)
    header = ["model", "px", "params M", "counted", "madds G", "counted", *(title for title, _ in published)]
    header += ["this machine, images/s (batch)" if table.throughput else "this machine, ms", "top-1 %", "measured as"]
    rows, group = [header], ""
    for row, record in pairs:
        if row.group != group:
            group = row.group
            rows.append([f"*{group}*", *[""] * (len(header) - 1)])
        parameters, multiply_adds = _counts(row, record, counted)
        rows.append(
            [
                _escaped(row.system),
                str(row.image_size_px),
                f"{row.parameters_millions:.1f}",
                _in_units(parameters, 1e6),
                f"{row.multiply_adds_billions:.1f}",
                _in_units(multiply_adds, 1e9),
                *(_plain(getattr(row, name)) for _, name in published),
                _speed(record, as_throughput=bool(table.throughput)),
                f"{row.top1:.1f}",
                f"`{row.model}`" if row.model else _NOTHING,
            ]
        )
    return _markdown(rows, left=(0, len(header) - 1))


def _published_speeds(table: PaperTable) -> list[tuple[str, str]]:
    """Titles and fields of the columns of speed."""
    columns = (
        ("gpu_ms", table.gpu, "ms"),
        ("phone_ms", table.phone, "ms"),
        ("images_per_s", table.throughput, "images/s"),
    )
    return [(f"{device}: {unit}", name) for name, device, unit in columns if device]


def _counts(row: PaperRow, record: Mapping[str, Any] | None, counted: Counted) -> tuple[int | None, int | None]:
    if record is not None and record["parameters"] and record["multiply_adds"]:
        return record["parameters"], record["multiply_adds"]
    return counted.get((row.model or "", row.image_size_px), (None, None))


def _speed(record: Mapping[str, Any] | None, *, as_throughput: bool) -> str:
    if record is None:
        return _NOTHING
    if as_throughput:
        return f"{record['images_per_s']:.1f} ({record['batch']})"
    return f"{record['median_ms']:.2f} ({record['low_ms']:.2f}–{record['high_ms']:.2f})"


def _notes(
    pairs: Sequence[tuple[PaperRow, Mapping[str, Any] | None]], result: Mapping[str, Any], runtime: str
) -> list[str]:
    """One line per reason or remark, with all the systems that it is of; what nobody tried is only counted."""
    reasons = {
        (each["model"], each["image_size"]): each["reason"]
        for each in result.get("skipped", [])
        if each["runtime"] == runtime
    }
    systems: dict[str, dict[str, None]] = {}  # names in order, once each
    untried = 0
    for row, record in pairs:
        if row.note:
            systems.setdefault(row.note, {})[row.system] = None
        if record is None and row.model is not None:
            reason = reasons.get((row.model, f"{row.image_size_px}x{row.image_size_px}"))
            if reason:
                systems.setdefault(" ".join(reason.split()), {})[f"{row.system} at {row.image_size_px} px"] = None
            else:
                untried += 1
    notes = [f"{_escaped(', '.join(names))}: {text}" for text, names in systems.items()]
    return [*notes, f"{untried} of {len(pairs)} rows were not measured."] if untried else notes


def _architectures(rows: Sequence[ArchitectureRow], counted: Counted) -> str:
    """The published architecture beside the config of this library."""
    header = ["variant", "channels", "here", "blocks", "here", "exp. ratio", "here", "stage 4", "here"]
    lines = [[*header, "params M", "counted", "madds G", "counted"]]
    for row in rows:
        config: Any = VARIANTS[row.model].config  # a FastViT's: no other paper prints such a table
        parameters, multiply_adds = counted.get((row.model, row.image_size_px), (None, None))
        lines.append(
            [
                row.system,
                str(row.stem_width),
                _spaced(config.widths),
                _spaced(row.blocks),
                _spaced(config.depths),
                str(row.mlp_ratio),
                str(config.mlp_ratio),
                row.last_mixer,
                _MIXER_NAMES[config.mixers[-1]],
                f"{row.parameters_millions:.1f}",
                _in_units(parameters, 1e6),
                f"{row.multiply_adds_billions:.1f}",
                _in_units(multiply_adds, 1e9),
            ]
        )
    return _markdown(lines, left=(0,)) + (
        "\n\nThe paper prints the channels of the stem. Its parameters are those of a plain head; the released models, "
        "which this library builds, have a wider one (with `head='plain'` all seven are within 3 %)."
    )


def _robustness(rows: Sequence[RobustnessRow]) -> str:
    """Columns are those that rows have: nothing of it is measured here."""
    suites = {suite: title for suite, title in _SUITES.items() if any(suite in row.values for row in rows)}
    counts = [
        (title, name)
        for title, name in (("params M", "parameters_millions"), ("madds G", "multiply_adds_billions"))
        if any(getattr(row, name) is not None for row in rows)
    ]
    digits = max(len(str(value).partition(".")[2]) for row in rows for value in row.values.values())
    lines = [["model", *(title for title, _ in counts), *suites.values(), "here"]]
    for row in rows:
        printed = [_plain(getattr(row, name)) for _, name in counts]
        values = [f"{row.values[suite]:.{digits}f}" if suite in row.values else _NOTHING for suite in suites]
        lines.append([_escaped(row.system), *printed, *values, f"`{row.model}`" if row.model else _NOTHING])
    note = (
        "Top-1 in %; of C mCE, lower is better. `hybridvit evaluate FILE --suites ...` measures it: docs/robustness.md."
    )
    return f"{_markdown(lines, left=(0, len(lines[0]) - 1))}\n\n{note}"


def _markdown(rows: Sequence[Sequence[str]], *, left: tuple[int, ...]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = ("---" if column in left else "---:" for column in range(len(rows[0])))
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def _escaped(text: str) -> str:
    return text.replace("*", r"\*").replace("|", r"\|")


def _spaced(numbers: Iterable[int]) -> str:
    return " ".join(str(number) for number in numbers)


def _plain(number: float | None) -> str:
    return _NOTHING if number is None else str(number)


def _in_units(number: int | None, unit: float) -> str:
    return _NOTHING if number is None else f"{number / unit:.1f}"
