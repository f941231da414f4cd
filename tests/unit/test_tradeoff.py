"""Charts of the trade-off: what is on the front, what is said, and that the files stand alone."""

import html
import re

import pytest
from PIL import Image

from hybridvit.charts.chart_file import write_page
from hybridvit.charts.label_places import place_labels
from hybridvit.charts.panels import Axis
from hybridvit.charts.tradeoff import (
    check_chart_path,
    draw,
    draw_resolution,
    draw_stages,
    pareto_front,
    tradeoff_page,
)
from hybridvit.charts.tradeoff_styles import short_labels, styles_of
from hybridvit.errors import UsageError
from hybridvit.machine.facts import MachineCard

RUNTIMES = {"torch": 1.6, "onnxruntime": 1.0, "openvino": 0.85}
CSV = "timm, results/results-imagenet.csv"
# invented latencies; family, millions of parameters, top-1, training, source
MODELS = {
    "fastvit_t8": (6.1, "fastvit", 3.6, 75.6, "plain", "FastViT, Table 5"),
    "fastvit_t12": (9.4, "fastvit", 6.8, 79.1, "plain", "FastViT, Table 5"),
    "fastvit_s12": (11.6, "fastvit", 8.8, 79.8, "plain", "FastViT, Table 5"),
    "fastvit_sa12": (13.9, "fastvit", 10.9, 80.6, "plain", "FastViT, Table 5"),
    "fastvit_sa24": (26.1, "fastvit", 20.6, 82.6, "plain", "FastViT, Table 5"),
    "fastvit_ma36": (57.0, "fastvit", 42.7, 83.9, "plain", "FastViT, Table 5"),
    "fastvit_sa12.apple_dist_in1k": (14.1, "fastvit", 10.9, 81.9, "distilled", CSV),
    "fastervit_0": (31.0, "fastervit", 31.4, 82.1, "plain", "FasterViT, Table 1"),
    "fastervit_1": (47.0, "fastervit", 53.4, 83.2, "plain", "FasterViT, Table 1"),
    "fastervit_2": (78.0, "fastervit", 75.9, 84.2, "plain", "FasterViT, Table 1"),
    "swin_tiny_hat": (49.0, "swin_hat", 29.6, 81.7, "plain", "FasterViT, Table 7"),
    "repvit_m0_9.dist_450e_in1k": (8.8, "repvit", 5.49, 79.058, "distilled", CSV),
    "repvit_m1_1.dist_450e_in1k": (13.0, "repvit", 8.8, 81.314, "distilled", CSV),
    "repvit_m2_3.dist_450e_in1k": (44.0, "repvit", 23.69, 83.746, "distilled", CSV),
    "mobilenetv4_conv_small.e2400_r224_in1k": (2.6, "mobilenetv4", 3.77, 73.756, "plain", CSV),
    "mobilenetv4_conv_medium.e500_r256_in1k": (7.8, "mobilenetv4", 9.72, 79.916, "plain", CSV),
    "efficientvit_b1.r224_in1k": (7.2, "efficientvit_mit", 9.1, 79.254, "plain", CSV),
    "efficientvit_m5.r224_in1k": (6.9, "efficientvit_msra", 12.47, 77.092, "plain", CSV),
    "shvit_s4.in1k": (8.0, "shvit", 16.59, 79.362, "plain", CSV),
    "efficientformerv2_s1.snap_dist_in1k": (12.2, "efficientformer_v2", 6.19, 79.684, "distilled", CSV),
    "swiftformer_l1.dist_in1k": (15.5, "swiftformer", 12.06, 80.906, "distilled", CSV),
    "caformer_s18.sail_in1k": (37.0, "metaformer", 26.34, 83.664, "plain", CSV),
    "caformer_s18.sail_in22k_ft_in1k": (37.4, "metaformer", 26.34, 84.092, "more data", CSV),
    "mobileone_s3": (11.0, "byobnet", 10.17, 78.002, "plain", CSV),
    "tiny_vit_21m_224.dist_in22k_ft_in1k": (41.0, "tiny_vit", 21.2, 85.088, "more data", CSV),
    "edgenext_small.usi_in1k": (12.9, "edgenext", 5.59, 81.068, "distilled", CSV),
    "resnet50.a1_in1k": (24.0, "resnet", 25.56, 80.382, "plain", CSV),
    "convnext_tiny.fb_in1k": (33.0, "convnext", 28.59, 82.066, "plain", CSV),
    "swin_tiny_patch4_window7_224.ms_in1k": (41.5, "swin_transformer", 28.29, 81.388, "plain", CSV),
    "poolformer_s12.sail_in1k": (17.0, "metaformer", 11.92, 77.24, "plain", CSV),
}


def record(model: str, runtime: str = "onnxruntime", **changes: object) -> dict:
    """One measurement as `hybridvit bench --json` writes it."""
    base, family, millions, top1, training, source = MODELS.get(model, (10.0, "", 5.0, None, "", ""))
    median = base * RUNTIMES.get(runtime, 1.0) * (1 + 0.07 * ((len(model) * len(runtime)) % 5 - 2))
    return {
        "model": model, "family": family, "form": "folded", "runtime": runtime, "precision": "fp32", "device": "cpu",
        "batch": 1, "image_size": "256x256", "threads": 2, "median_ms": median, "low_ms": 0.985 * median,
        "high_ms": 1.02 * median, "p90_ms": 1.1 * median, "p99_ms": 1.3 * median, "images_per_s": 1e3 / median,
        "rounds": 100, "calls": 1, "memory_mib": None, "parameters": int(millions * 1e6),
        "multiply_adds": int(millions * 2e8), "activations": None, "top1": top1, "top1_of": training,
        "top1_source": source,
    } | changes  # fmt: skip


@pytest.fixture
def result() -> dict:
    """30 models in 3 runtimes, three of them at more sizes, with all that must not get lost."""
    records = [record(model, runtime) for runtime in RUNTIMES for model in MODELS]
    for model in ("fastvit_t8", "fastvit_sa12", "fastervit_0"):
        for side in (384, 512, 768):
            median = MODELS[model][0] * (side / 256) ** 2.1
            changes = {"median_ms": median, "low_ms": 0.97 * median, "high_ms": 1.05 * median, "top1": None}
            records.append(record(model, image_size=f"{side}x{side}", **changes))
    records.append(record("runs/mine/best.safetensors"))
    records.append(record("fastvit_t8", "torch", form="training", median_ms=11.0))
    card = MachineCard(
        processor="A Processor @ 2.1 GHz", cores=2, memory_gib=7.6, instruction_sets=("avx2", "avx_vnni"), gpu="none",
        system="Linux 6.1 x86_64", python="3.11.2", versions={"torch": "2.10.0", "onnxruntime": "1.23.0"},
        environment={"OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip
    return {
        "format": 1,
        "bench": records,
        "skipped": [
            {"model": "maxvit_large", "runtime": "torch", "precision": "fp32", "image_size": "224x224", "batch": 128,
             "reason": "it needs 31 GiB of memory, and 7 GiB are free"},
        ],
        "settings": {"rounds": 100, "warmup": "until stable"},
        "conditions": {"frequency_drop": 0.02, "warnings": ["Times are noisy.", "Others took a core."]},
        "machine": card.to_dict(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(3, 70), (1, 60), (2, 80)], [(1, 60), (2, 80)]),  # the slow one is beaten
        ([(1, 60), (1, 70)], [(1, 70)]),  # as cheap and better
        ([(2, 70), (1, 70)], [(1, 70)]),  # as good and cheaper
        ([(1, 70, "a"), (1, 70, "b"), (2, 70, "c")], [(1, 70, "a"), (1, 70, "b")]),  # equals both stay
        ([(1, float("nan")), (float("inf"), 90), (2, 50)], [(2, 50)]),
    ],
)
def test_the_front_is_what_no_other_beats(points, front):
    assert pareto_front(points) == front


@pytest.mark.parametrize("name", ["chart.pdf", "chart"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        check_chart_path(tmp_path / name)
    assert f"{tmp_path / name}'" in str(caught.value)
    assert "(.html) or a picture (.png)" in str(caught.value)
    assert f"Use {tmp_path / 'chart.html'}." in str(caught.value)


def test_a_missing_folder_is_refused_before_the_measurement(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        check_chart_path(tmp_path / "nowhere" / "chart.html")


@pytest.mark.parametrize(("suffix", "package"), [(".html", "plotly"), (".png", "matplotlib")])
def test_a_missing_package_is_named_with_what_installs_it(tmp_path, monkeypatch, suffix, package):
    monkeypatch.setattr("hybridvit.charts.chart_file.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=rf'by {package}, which is not installed. Run: pip install "hybridvit\[charts\]"'
    ):
        check_chart_path(tmp_path / f"chart{suffix}")


def test_the_page_stands_alone_and_says_everything(tmp_path, result):
    result["bench"].append(record("</script><script>alert(1)</script>.pth", top1=70.0, top1_of="plain", family="<b>x"))
    path = tmp_path / "chart.html"
    draw(result, path)
    page = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in page  # the browser refuses whatever a script would load
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=""", page)
    assert '"showSendToCloud": false' in page
    assert "alert(1)</script>" not in page
    own = page[: page.index("<script>")] + page[page.index("<main>") :]  # without plotly's script
    assert not re.search("https?:", own)
    text = html.unescape(own)
    for said in (
        "Accuracy and latency: PyTorch, fp32, batch 1, CPU, 2 threads",
        "Accuracy and latency: OpenVINO, fp32, batch 1, CPU, 2 threads",
        "Accuracy and parameters",
        "Latency and image size: ONNX Runtime, fp32, batch 1, CPU, 2 threads",
        "warnings Times are noisy. Others took a core.",
        "Without a published accuracy, so not in the charts of accuracy: 10 of 101 rows",
        "Skipped: maxvit_large torch fp32 224x224 batch 128: it needs 31 GiB of memory, and 7 GiB are free.",
        "the training form where the folded one is drawn (rows: 1)",
        "FasterViT, Table 7",
        "A Processor @ 2.1 GHz, 2 cores usable, 8 GiB",
        "rounds 100, warmup until stable",
        "top-1 81.9 %, distilled [2] timm, results",
    ):
        assert said in text.replace("\\u003c", "<").replace("\\u002f", "/"), said


def test_the_picture_is_large_enough_to_print(tmp_path, result):
    path = tmp_path / "chart.png"
    draw(result, path)
    with Image.open(path) as picture:
        assert picture.size[0] == 1520  # 7.6 inches
        assert picture.info["dpi"] == pytest.approx((200, 200), abs=1)
        assert picture.size[1] > 5000  # five panels


def test_a_name_in_another_script_is_drawn_without_a_warning(tmp_path):
    draw({"bench": [record("模型$x_1$.pth", top1=70.0, family="f")]}, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").is_file()


def test_panels_hold_what_is_comparable(result):
    page = tradeoff_page(result)
    accuracy = page.panels[0]
    assert [panel.title.partition(":")[0] for panel in page.panels] == (
        ["Accuracy and latency"] * 3 + ["Accuracy and parameters", "Latency and image size", "Latency"]
    )
    points = {
        point.details[0]: (series, point) for series in accuracy.series for point in series.points if point.details
    }
    assert len(points) == len(MODELS)  # of one runtime, the training form not among them
    series, point = points["fastvit_t8"]
    measured = next(row for row in result["bench"] if (row["model"], row["runtime"]) == ("fastvit_t8", "torch"))
    assert (point.x, point.y) == (measured["median_ms"], 75.6)
    assert point.x_interval == (measured["low_ms"], measured["high_ms"])
    assert series.style.filled
    assert series.style.shape == "circle"
    assert points["fastvit_sa12.apple_dist_in1k"][0].style.shape == "diamond"
    assert points["tiny_vit_21m_224.dist_in22k_ft_in1k"][0].style.shape == "square"
    assert not points["resnet50.a1_in1k"][0].style.filled
    assert point.must_label
    assert [series.name for series in page.key][:6] == [
        "on ImageNet-1k alone",
        "distilled from a larger model",
        "pretrained on more data",
        "Pareto front",
        "Pareto front of ImageNet-1k alone",
        "FastViT",
    ]


def test_the_second_front_has_plain_training_alone(result):
    lines = {series.group: series for series in tradeoff_page(result).panels[1].series if series.style is None}
    assert max(point.y for point in lines["front"].points) == 85.088  # more data
    assert max(point.y for point in lines["front of plain training"].points) == 84.2


def test_one_model_is_one_point_against_parameters(result):
    panel = tradeoff_page(result).panels[3]
    names = [point.details[0] for series in panel.series for point in series.points if point.details]
    assert len(names) == len(set(names)) == len(MODELS)


def test_a_model_at_several_sizes_says_which(result):
    rows = [record("fastvit_t8"), record("fastvit_t8", image_size="384x384", median_ms=14.0, top1=76.9)]
    points = [point for series in tradeoff_page({"bench": rows}).panels[0].series for point in series.points]
    assert {point.label for point in points if point.label} == {"fastvit_t8 @256", "fastvit_t8 @384"}


def test_int8_has_panels_of_its_own():
    rows = [record("fastvit_t8"), record("fastvit_t8", precision="int8", top1=75.1), record("fastvit_s12")]
    titles = [panel.title for panel in tradeoff_page({"bench": rows}).panels]
    assert titles[:2] == [
        f"Accuracy and latency: ONNX Runtime, {precision}, batch 1, CPU, 2 threads" for precision in ("fp32", "int8")
    ]


def test_nothing_to_draw_is_said():
    with pytest.raises(UsageError, match="The result has no measured row"):
        tradeoff_page({"bench": []})


def test_ones_own_checkpoints_get_a_chart_of_latencies(tmp_path):
    rows = [record("runs/a/model.safetensors", "torch"), record("runs/a/model.safetensors", "onnxruntime")]
    rows += [record("runs/b/model.safetensors", "torch"), record("runs/b/model.safetensors", "torch", batch=8)]
    page = tradeoff_page({"bench": rows})
    assert page.title == "Speed of 2 models in 2 runtimes"
    assert "ccuracy" not in page.lead
    one, eight = page.panels
    assert (one.title, eight.title) == ("Latency: 256x256 px, batch 1", "Latency: 256x256 px, batch 8")
    assert [(series.name, [bar.value for bar in series.bars]) for series in one.series] == [
        ("ONNX Runtime", [rows[1]["median_ms"], None]),
        ("PyTorch", [rows[0]["median_ms"], rows[2]["median_ms"]]),
    ]
    assert len(set(one.groups)) == 2
    for suffix in ("html", "png"):
        draw({"bench": rows}, tmp_path / f"chart.{suffix}")
        assert (tmp_path / f"chart.{suffix}").stat().st_size > 10_000


def test_labels_are_short_where_that_tells_models_apart():
    assert short_labels(
        {
            "swin_tiny_patch4_window7_224.ms_in1k": "plain",
            "runs/a/best.pth": "",
            "runs/b/best.pth": "",
            "caformer_s18.sail_in1k": "plain",
            "caformer_s18.sail_in22k_ft_in1k": "more data",
            "convnext_tiny": "plain",
            "convnext_tiny.fb_in1k": "plain",
            "vit_small_224": "plain",
            "vit_small_384": "plain",
        }
    ) == {
        "swin_tiny_patch4_window7_224.ms_in1k": "swin_tiny",
        "runs/a/best.pth": "runs/a/best.pth",
        "runs/b/best.pth": "runs/b/best.pth",
        "caformer_s18.sail_in1k": "caformer_s18",  # the marks differ
        "caformer_s18.sail_in22k_ft_in1k": "caformer_s18",
        "convnext_tiny": "convnext_tiny",
        "convnext_tiny.fb_in1k": "convnext_tiny.fb_in1k",
        "vit_small_224": "vit_small_224",
        "vit_small_384": "vit_small_384",
    }


def test_sixteen_other_families_look_different():
    styles = styles_of([f"family{index}" for index in range(16)] + ["fastvit", "fastervit", "swin_hat"])
    assert len({(style.colour, style.glyph) for style in styles.values()}) == 19
    assert [family for family, style in styles.items() if style.filled] == ["fastvit", "fastervit", "swin_hat"]


def test_labels_do_not_cover_each_other_or_the_points():
    points = [(60.0 + 24 * index, 100.0 + 18 * (index % 3)) for index in range(12)]
    places = place_labels(
        points, [(50.0, 12.0)] * 12, must=[index < 4 for index in range(12)], radii=[4.0] * 12, area=(400, 300)
    )
    assert all(places[:4])
    boxes = [place.box for place in places if place is not None]
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert all(
            other[0] >= right or other[2] <= left or other[1] >= bottom or other[3] <= top for other in boxes[:index]
        )


@pytest.mark.parametrize("values", [(2.6, 110.0), (5.0, 5.2), (1.0,), (0.02, 9000.0)])
def test_a_log_axis_has_round_ticks(values):
    axis = Axis(label="ms", log=True)
    ticks = axis.ticks(*axis.span(values))
    assert 2 <= len(ticks) <= 9
    assert all(len(text.replace(".", "").strip("0")) <= 2 for _, text in ticks)


def mixers(runtimes: tuple[str, ...] = ("torch", "openvino")) -> list[dict]:
    """Pooling and RepMixer, 20 % faster at 384 px and 40 % at 1024 px."""
    return [
        record(
            model, runtime, image_size=f"{side}x{side}", median_ms=factor * ms, low_ms=0.99 * factor * ms,
            high_ms=1.01 * factor * ms,
        )
        for runtime in runtimes
        for side, ms, saved in ((384, 50.0, 0.2), (768, 200.0, 0.3), (1024, 400.0, 0.4))
        for model, factor in (("pooling", 1.0), ("RepMixer", 1 - saved))
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_the_reduction_stands_beside_the_papers(tmp_path, monkeypatch, suffix):
    pages = []
    monkeypatch.setattr("hybridvit.charts.profiles.write_page", lambda page, path: pages.append((page, path)))
    path = tmp_path / f"mixers{suffix}"
    draw_resolution(mixers(), path, "Mixers")
    bars = pages[0][0].panels[-1]
    assert bars.groups == ("384", "1024")  # where the paper has a number
    assert [series.name for series in bars.series] == ["paper (iPhone 12 Pro)", "PyTorch", "OpenVINO"]
    assert [bar.value for bar in bars.series[0].bars] == [25.1, 43.9]
    assert [bar.value for bar in bars.series[1].bars] == pytest.approx([20.0, 40.0])
    low, high = bars.series[1].bars[0].interval
    assert (low, high) == pytest.approx((100 * (1 - 0.8 * 1.01 / 0.99), 100 * (1 - 0.8 * 0.99 / 1.01)))
    write_page(*pages[0])
    assert path.stat().st_size > 10_000


def test_one_mixer_alone_is_no_comparison(tmp_path):
    with pytest.raises(UsageError, match="no two are 'pooling' and 'RepMixer' in one runtime at one image size"):
        draw_resolution([row for row in mixers() if row["model"] == "pooling"], tmp_path / "mixers.png")


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_stages_show_their_shares(tmp_path, monkeypatch, suffix):
    pages = []
    monkeypatch.setattr("hybridvit.charts.profiles.write_page", lambda page, path: pages.append((page, path)))
    stages = [
        {"stage": name, "median_ms": ms, "low_ms": 0.9 * ms, "high_ms": 1.1 * ms, "multiply_adds": 1e9, "parameters":
         2**18, "activation_bytes": 3 * 2**20}
        for name, ms in (("stem", 1.0), ("1", 2.0), ("2", 7.0))
    ]  # fmt: skip
    draw_stages(stages, tmp_path / f"stages{suffix}", "Stages")
    latency, multiply_adds, memory = pages[0][0].panels
    assert latency.groups == ("stem", "stage 1", "stage 2")
    assert [bar.label for bar in latency.series[0].bars] == ["1 (10 %)", "2 (20 %)", "7 (70 %)"]
    assert [bar.value for bar in multiply_adds.series[0].bars] == [1.0, 1.0, 1.0]
    assert [series.bars[0].value for series in memory.series] == [1.0, 3.0]  # MiB of weights and activations
    write_page(*pages[0])
    assert (tmp_path / f"stages{suffix}").stat().st_size > 10_000


def test_no_stages_are_refused(tmp_path):
    with pytest.raises(UsageError, match="The list of stages is empty"):
        draw_stages([], tmp_path / "stages.png")
