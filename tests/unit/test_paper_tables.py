"""The papers' tables: transcribed as printed, and shown beside what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest

from hybridvit.charts.tables import render_tables
from hybridvit.cli import tables as command
from hybridvit.cli.command import SignatureCommand
from hybridvit.errors import ExportError, UsageError
from hybridvit.measure.counts import Counts, counted
from hybridvit.measure.result import COLUMNS
from hybridvit.measure.subject import find_subject
from hybridvit.models.registry import VARIANTS
from hybridvit.peers import MISSING
from hybridvit.peers.paper_row import PaperRow
from hybridvit.peers.papers import TABLES, find_tables, models_by_size


def record(model: str, side: int, **others: Any) -> dict[str, Any]:
    """As `hybridvit bench` writes it; the numbers are invented."""
    row = dict.fromkeys(COLUMNS) | {"model": model, "form": "folded", "runtime": "onnxruntime", "precision": "fp32"}
    row |= {"device": "cpu", "batch": 1, "image_size": f"{side}x{side}", "threads": 2, "median_ms": 7.0, "low_ms": 6.5}
    row |= {"high_ms": 7.5, "images_per_s": 142.86, "rounds": 30, "parameters": 12_345_678, "multiply_adds": 10**9}
    return row | others


def result(*records: dict[str, Any], skipped: tuple[dict[str, Any], ...] = (), processor: str = "A") -> dict[str, Any]:
    machine = {"processor": processor, "gpu": "none"}
    return {"format": 1, "bench": list(records), "skipped": list(skipped), "machine": machine}


def skip(model: str, side: int, reason: str) -> dict[str, Any]:
    shared = {"runtime": "onnxruntime", "precision": "fp32", "batch": 1}
    return {"model": model, "image_size": f"{side}x{side}", "reason": reason, **shared}


def row_of(table: str, system: str, side: int) -> PaperRow:
    return next(row for row in TABLES[table].rows if (row.system, row.image_size_px) == (system, side))


def line_of(text: str, system: str) -> list[str]:
    """The cells of the first line of a system."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {system} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("name", "rows", "ours", "missing", "parameters", "multiply_adds", "top1"),
    [
        ("fastvit-5", 57, 9, 12, 2313.5, 571.8, 4680.1),
        ("fastvit-6", 14, 7, 0, 437.0, 91.9, 1149.6),
        ("fastervit-1", 28, 7, 1, 4586.4, 607.0, 2335.0),
        ("fastervit-3", 7, 2, 0, 1946.2, 620.3, 607.0),
    ],
)
def test_transcription(
    name: str, rows: int, ours: int, missing: int, parameters: float, multiply_adds: float, top1: float
) -> None:
    table = TABLES[name].rows
    assert len(table) == rows
    assert sum(row.model in VARIANTS for row in table) == ours
    assert sum(row.model is None for row in table) == missing
    assert sum(row.parameters_millions for row in table) == pytest.approx(parameters)
    assert sum(row.multiply_adds_billions for row in table) == pytest.approx(multiply_adds)
    assert sum(row.top1 for row in table) == pytest.approx(top1)


@pytest.mark.parametrize(
    ("name", "rows", "ours", "sums"),
    [
        ("fastvit-7", 15, 4, {"imagenet": 1215.4, "c": 891.5, "a": 317.8, "r": 665.8, "sketch": 477.8}),
        ("fastervit-s2", 14, 7, {"imagenet": 1172.3, "v2-matched": 1025.4, "a": 516.1, "r": 698.9}),
        ("timm-robustness", 25, 14, {"imagenet": 2036.72, "v2-matched": 1762.4, "real": 2171.27, "sketch": 807.33}),
    ],
)
def test_transcription_of_robustness(name: str, rows: int, ours: int, sums: dict[str, float]) -> None:
    table = TABLES[name].robustness
    assert len(table) == rows
    assert sum(row.model in VARIANTS for row in table) == ours == sum(row.model is not None for row in table)
    assert {suite: sum(row.values[suite] for row in table) for suite in sums} == pytest.approx(sums)


def test_robustness_is_shown_as_printed_and_not_measured(calls: list[tuple[int, list[str]]], tmp_path: Path) -> None:
    page = tmp_path / "table.md"
    command.tables(names=["fastvit-7", "fastervit-s2", "timm-robustness"], output=page)
    assert not calls
    text = page.read_text()
    assert "| model | params M | madds G | clean | C: mCE | A | R | Sketch | here |" in text
    cells = line_of(text, "FastViT-SA24")
    assert cells == ["FastViT-SA24", "20.6", "3.8", "82.6", "55.3", "26.0", "46.5", "34.0", "`fastvit_sa24`"]
    assert line_of(text, "FasterViT-6") == [
        "FasterViT-6", "1360.0", "142.0", "85.8", "76.1", "53.7", "57.1", "`fastervit_6`"
    ]  # fmt: skip
    assert line_of(text, "fastvit_sa24") == [
        "fastvit_sa24", "82.71", "72.07", "87.65", "29.00", "46.65", "34.10", "`fastvit_sa24`"
    ]  # fmt: skip


def test_clean_accuracy_is_that_of_the_other_tables() -> None:
    printed = {row.model: row.top1 for name in ("fastvit-5", "fastervit-1") for row in reversed(TABLES[name].rows)}
    for name in ("fastvit-7", "fastervit-s2"):
        for row in TABLES[name].robustness:
            assert row.model is None or row.values["imagenet"] == printed[row.model]


def test_single_rows_are_as_printed() -> None:
    row = row_of("fastvit-5", "ConvNeXt-B*", 224)
    assert (row.parameters_millions, row.multiply_adds_billions, row.gpu_ms, row.phone_ms) == (89.0, 15.4, 13.6, 8.4)
    row = row_of("fastvit-5", "FastViT-SA36", 384)
    assert (row.multiply_adds_billions, row.gpu_ms, row.phone_ms, row.top1) == (12.6, 12.8, 7.4, 84.5)
    row = row_of("fastvit-5", "Swin-T", 224)
    assert (row.gpu_ms, row.phone_ms) == (None, 9.3)
    row = row_of("fastvit-6", "CaiT XS-24", 384)
    assert (row.gpu_ms, row.phone_ms, row.top1) == (77.7, None, 84.1)
    row = row_of("fastervit-1", "FasterViT-4", 224)
    assert (row.parameters_millions, row.images_per_s, row.top1, row.group) == (424.6, 849, 85.4, "FasterViT")
    row = row_of("fastervit-3", "ConvNeXt-L", 384)
    assert (row.images_per_s, row.top1, row.model) == (172, 87.5, "convnext_large.fb_in22k_ft_in1k_384")


def test_what_is_published_of_ours_elsewhere_is_what_the_tables_say() -> None:
    for name in ("fastvit-5", "fastvit-6", "fastervit-1"):
        for row in TABLES[name].rows:
            if row.model in VARIANTS and row.image_size_px == VARIANTS[row.model].published.image_size_px:
                published = VARIANTS[row.model].published
                assert row.parameters_millions == published.parameters_millions
                assert row.multiply_adds_billions == published.multiply_adds_billions
                assert row.top1 == (published.top1_distilled if name == "fastvit-6" else published.top1)
                speeds = {latency.batch: latency.milliseconds for latency in published.latencies}
                if name == "fastervit-1":
                    assert speeds == {128: 128e3 / row.images_per_s}
                else:
                    assert speeds == {1: row.phone_ms, 8: row.gpu_ms}


def test_the_architectures_are_the_configs() -> None:
    assert len(TABLES["fastvit-2"].architectures) == 7
    for row in TABLES["fastvit-2"].architectures:
        config = VARIANTS[row.model].config
        assert (config.depths, config.mlp_ratio, config.widths[0]) == (row.blocks, row.mlp_ratio, row.stem_width)
        assert config.mixers[-1] == row.last_mixer.lower()


def test_a_row_shows_published_and_measured_side_by_side() -> None:
    text = render_tables([TABLES["fastvit-5"]], result(record("fastvit_t8", 256)), {}, runtime="onnxruntime")
    cells = line_of(text, "FastViT-T8")
    assert cells[:6] == ["FastViT-T8", "256", "3.6", "12.3", "0.7", "1.0"]
    assert cells[6:] == ["1.7", "0.8", "7.00 (6.50–7.50)", "75.6", "`fastvit_t8`"]
    assert "This machine: A; onnxruntime, fp32, 2 threads, 30 rounds" in text
    assert "RTX 2080Ti, TensorRT, batch 8: ms" in text
    assert line_of(text, r"CMT-T\*")[-3:] == ["-", "79.1", "-"]
    assert r"- CMT-T\*, CvT-13, CMT-XS\*, " in text
    assert "44 of 57 rows were not measured." in text


@pytest.mark.parametrize(
    "other",
    [{"runtime": "torch"}, {"precision": "bf16"}, {"form": "training"}, {"image_size": "224x224"}, {"batch": 8}],
    ids=str,
)
def test_records_of_something_else_are_not_shown(other: dict[str, Any]) -> None:
    measured = result(record("fastvit_t8", 256, **other))
    text = render_tables([TABLES["fastvit-6"]], measured, {}, runtime="onnxruntime")
    assert line_of(text, "FastViT-T8")[8] == "-"


def test_throughput_is_of_the_largest_batch_there_is() -> None:
    measured = result(record("fastervit_0", 224), record("fastervit_0", 224, batch=128, images_per_s=200.04))
    text = render_tables([TABLES["fastervit-1"]], measured, {}, runtime="onnxruntime")
    assert line_of(text, "FasterViT-0")[6:8] == ["5802", "200.0 (128)"]
    assert "| *Hybrid* |" in text


def test_counts_serve_where_nothing_was_measured() -> None:
    counted = {("fastvit_t8", 256): (3_992_392, 695_000_000)}
    text = render_tables(find_tables(["fastvit-2", "fastvit-6"]), result(), counted, runtime="torch")
    assert line_of(text, "T8") == [
        "T8", "48", "48 96 192 384", "2 2 4 2", "2 2 4 2", "3", "3", "RepMixer", "RepMixer", "3.6", "4.0", "0.7", "0.7"
    ]  # fmt: skip
    assert line_of(text, "FastViT-T8")[2:6] == ["3.6", "4.0", "0.7", "0.7"]
    assert "Nothing was measured on this machine." in text


def test_a_reason_stands_below_the_table() -> None:
    measured = result(skipped=(skip("fastvit_ma36", 384, "needs 9 GiB\nof 4"), skip("fastvit_sa36", 384, "slow")))
    text = render_tables([TABLES["fastvit-5"]], measured, {}, runtime="onnxruntime")
    assert "- FastViT-MA36 at 384 px: needs 9 GiB of 4" in text
    assert "- FastViT-SA36 at 384 px: slow" in text


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Has no clock run: a fixed answer for every model but CaiT, and what was asked for."""
    asked: list[tuple[int, list[str]]] = []

    def measured_rows(models: list[str], *, runtime: str, side: int, rounds: int) -> dict[str, Any]:
        asked.append((side, models))
        if side == 384:
            raise ExportError("The exported file differs by 3.")
        rows = [record(model, side, runtime=runtime) for model in models if not model.startswith("cait")]
        return result(*rows, skipped=tuple(skip(m, side, "too large") for m in models if m.startswith("cait")))

    monkeypatch.setattr(command, "measured_rows", measured_rows)
    large = Counts(parameters=42_000_000, multiply_adds=7_000_000_000, activations=1, by_kind={})
    monkeypatch.setattr("hybridvit.measure.counts.counted", lambda _subject, _size: large)
    return asked


def test_what_the_files_lack_is_measured_and_kept(tmp_path: Path, calls: list[tuple[int, list[str]]]) -> None:
    have = tmp_path / "have.json"
    have.write_text(json.dumps(result(record("fastvit_t8", 256, median_ms=3.0, low_ms=2.0, high_ms=4.0))))
    kept, page = tmp_path / "kept.json", tmp_path / "table.md"
    command.tables(names=["fastvit-6"], measured=[str(have)], json_file=kept, output=page)
    assert [side for side, _ in calls] == [224, 256, 384]
    assert "fastvit_t8" not in calls[1][1]
    assert len(calls[1][1]) == 6
    text = page.read_text()
    assert line_of(text, "FastViT-T8")[8] == "3.00 (2.00–4.00)"
    assert line_of(text, "DeiT-S")[8] == "7.00 (6.50–7.50)"
    assert "- CaiT XXS-36 at 224 px, CaiT S-24 at 224 px: too large" in text
    assert "- CaiT XS-24 at 384 px: The exported file differs by 3." in text

    calls.clear()
    before = kept.read_text()
    with pytest.raises(UsageError, match=r"kept\.json exists, and its results would be lost"):
        command.tables(names=["fastvit-6"], json_file=kept, output=page)
    assert kept.read_text() == before
    command.tables(names=["fastvit-6"], measured=[str(kept)], json_file=kept, output=page)
    assert not calls
    assert page.read_text() == text


def test_without_measuring_only_files_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calls: list[tuple[int, list[str]]]
) -> None:
    command.tables(names=["fastvit-2"], no_measuring=True, json_file=tmp_path / "kept.json")
    assert not calls
    with pytest.raises(UsageError, match="at least 8 rounds"):
        command.tables(names=["fastvit-2"], rounds=0)
    assert json.loads((tmp_path / "kept.json").read_text())["bench"] == []  # what the files have, all the same
    assert line_of(capsys.readouterr().out, "MA36")[9:] == ["42.7", "42.0", "7.9", "7.0"]


def test_counts_are_of_folded_models_even_of_those_that_fold_by_arithmetic() -> None:
    ours = counted(find_subject("fastvit_t8"), (256, 256))
    theirs = counted(find_subject("mobileone_s0.apple_in1k"), (224, 224))  # 5.29 M before it is folded
    assert ours is not None
    assert theirs is not None
    assert ours.parameters == 3_992_392
    assert (round(theirs.parameters / 1e6, 1), round(theirs.multiply_adds / 1e9, 1)) == (2.1, 0.3)  # as published


def test_files_of_two_machines_are_refused(tmp_path: Path) -> None:
    for name, processor in (("a", "Xeon"), ("b", "EPYC")):
        (tmp_path / name).write_text(json.dumps(result(record("fastvit_t8", 256), processor=processor)))
    with pytest.raises(UsageError, match=r"of two machines \('Xeon' and 'EPYC'\).*Give the files of one machine"):
        command.tables(measured=[str(tmp_path / "a"), str(tmp_path / "b")], no_measuring=True)


def test_of_two_records_the_later_file_counts() -> None:
    both = command.merged([result(record("m", 1, median_ms=1.0)), result(record("m", 1, median_ms=2.0))])
    assert [each["median_ms"] for each in both["bench"]] == [2.0]


def test_an_unknown_table_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no table 'fastvit-8'\. Nearest: 'fastvit-"):
        command.tables(names=["fastvit-8"])
    with pytest.raises(UsageError, match=r"The folder .* does not exist"):
        command.tables(output=tmp_path / "no" / "table.md")
    with pytest.raises(UsageError, match="There is no file"):
        command.tables(measured=[str(tmp_path / "none.json")])


def test_a_missing_runtime_is_an_error_and_no_footnote(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UsageError("There is no runtime 'onnx'.")

    monkeypatch.setattr(command, "measured_rows", refuse)
    with pytest.raises(UsageError, match="There is no runtime 'onnx'"):
        command.tables(names=["fastvit-6"], runtime="onnx")


def test_the_command_explains_itself() -> None:
    text = SignatureCommand("tables", command.tables).help()
    for word in ("--names", "--measured", "--no_measuring", "--json_file", "fastervit-3"):
        assert word in text


def test_every_system_that_is_missing_from_the_tables_has_a_reason() -> None:
    absent = {row.system.rstrip("*") for table in TABLES.values() for row in table.rows if row.model is None}
    assert absent <= set(MISSING)
    assert {"CMT-T", "CvT-13", "LITv2-B", "MOAT-2", "EdgeViT-S"} <= absent


def test_models_are_measured_once_per_size() -> None:
    by_size = models_by_size(list(TABLES.values()))
    assert list(by_size) == sorted(by_size)
    assert all(len(models) == len(set(models)) for models in by_size.values())
    assert {"fastvit_sa36", "fastvit_ma36", "coatnet_0_224"} <= set(by_size[384])
