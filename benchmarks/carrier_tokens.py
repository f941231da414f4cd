"""Do carrier tokens matter? Two marks far apart, same or different: windows alone against windows with carriers.

    python benchmarks/carrier_tokens.py                # 3 models x 3 seeds on one thread; draws docs/carrier-tokens.png

Each run is `hybridvit train two_marks` with other model options and seeds; accuracy is the last validation's.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from comparison import report
from torch import Tensor

import hybridvit
from hybridvit.data.two_marks import MARK_PX, TwoMarks
from hybridvit.models.fastervit.model import FasterViT
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.recipe import ModelOption, Recipe
from hybridvit.training.train import train

WINDOWS, SILENT, CARRIERS = "windows alone", "carriers that do not\nattend to each other", "carriers"
COLOURS = {WINDOWS: "#D55E00", SILENT: "#666666", CARRIERS: "#0072B2"}  # Okabe and Ito's, told apart by shape too
WINDOW_PX = 24  # side of the recipe's windows
MARKERS = {WINDOWS: "s", SILENT: "^", CARRIERS: "o"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training left."""

    row: str
    seed: int
    accuracy: float  # percent of the validation images
    parameters: int
    core_seconds: float  # of computation: on a shared machine the clock on the wall says little
    model: Path

    def record(self) -> dict[str, Any]:
        """For the JSON line."""
        return {"seed": self.seed, "accuracy": round(self.accuracy, 2), "core_seconds": round(self.core_seconds, 1)}


def recipe_of(row: str, seed: int, output: Path) -> Recipe:
    """The recipe two_marks, with the attention stage changed as the row says."""
    recipe = load_recipe("two_marks", {"seed": seed, "output": str(output), "accelerator": "cpu"})
    options: dict[str, ModelOption] = dict(recipe.model_options)
    if row == WINDOWS:
        options["mixers"] = ("conv", "window")
        del options["carrier_size"], options["propagate"]
    elif row == SILENT:
        options["carrier_attention"] = False
    return replace(recipe, model_options=options)


def run(row: str, seed: int, output: Path) -> Run:
    """Train once."""
    start = time.process_time()
    result = train(recipe_of(row, seed, output), progress=False)
    core_seconds = time.process_time() - start
    model = cast(FasterViT, hybridvit.load(result.model))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    done = Run(
        row=row,
        seed=seed,
        accuracy=result.history[-1]["top1"],
        parameters=parameters,
        core_seconds=core_seconds,
        model=result.last,
    )
    print(
        f"  {' '.join(row.split()):<42} seed {seed}  {done.accuracy:6.2f} %  {core_seconds:5.0f} s of one core",
        flush=True,
    )
    return done


def summary(runs: list[Run]) -> dict[str, object]:
    """Mean and spread (sample standard deviation) of the runs of one row."""
    accuracies = [run.accuracy for run in runs]
    return {
        "mean": round(statistics.mean(accuracies), 2),
        "spread": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None,
        "parameters": runs[0].parameters,
        "runs": [run.record() for run in runs],
    }


def sensitivity(model: FasterViT, image: Tensor, place: tuple[int, int]) -> Tensor:
    """How much each pixel moves the last map where it shows `place`: the gradient's norm over the colours (h w)."""
    image = image[None].requires_grad_()
    fmap = model.eval().forward_features(image)
    stride = image.shape[-1] // fmap.shape[-1]
    fmap[0, :, place[0] // stride, place[1] // stride].square().sum().backward()
    assert image.grad is not None
    return image.grad[0].norm(dim=0)


def draw(rows: dict[str, list[Run]], path: Path) -> None:
    """The picture: an image of each class, what one token sees in two of the models, every run's accuracy."""
    import matplotlib
    import matplotlib.patches

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    images = TwoMarks(length=64, seed=1)
    same, different = (
        next(index for index in range(64) if images.labels[index] == label and images.kinds(0, index)[0] == 0)
        for label in (0, 1)
    )
    with matplotlib.rc_context({"font.size": 9}):
        figure: Any = Figure(figsize=(7.4, 4.6), layout="constrained", dpi=160)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)
        above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
        panels = above.subplots(1, 4)
        for axes, title, index in ((panels[0], "same", same), (panels[1], "different", different)):
            axes.imshow(_pixels(images, index).mean(0), cmap="gray", vmin=-2.5, vmax=2.5)
            axes.set_title(f"\nlabel: {title}")
        for axes, row in ((panels[2], WINDOWS), (panels[3], CARRIERS)):
            model = cast(FasterViT, hybridvit.load(rows[row][0].model))
            places = images.places(0, different)
            seen = sensitivity(
                model, _pixels(images, different), (places[0][0] + MARK_PX // 2, places[0][1] + MARK_PX // 2)
            )
            axes.imshow((seen / seen.max()).clamp(min=1e-8).log10(), cmap="cividis", vmin=-6, vmax=0)
            axes.set_title(f"{row}:\nwhat one token sees", color=COLOURS[row])
            for top, left in places:
                centre = (left + MARK_PX / 2 - 0.5, top + MARK_PX / 2 - 0.5)
                axes.add_patch(matplotlib.patches.Circle(centre, MARK_PX / 2, fill=False, color="white"))
        for axes in panels:
            _draw_windows(axes, images.image_size)
        _draw_accuracies(below.subplots(), rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})


def _pixels(images: TwoMarks, index: int) -> Tensor:
    image = images.draw(0, index).image
    assert image is not None
    return image


def _draw_windows(axes: Any, side: int) -> None:
    """Lines between the windows of the attention stage."""
    lines = [line - 0.5 for line in range(WINDOW_PX, side, WINDOW_PX)]
    axes.hlines(lines, -0.5, side - 0.5, colors="white", linewidths=0.4)
    axes.vlines(lines, -0.5, side - 0.5, colors="white", linewidths=0.4)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_accuracies(axes: Any, rows: dict[str, list[Run]]) -> None:
    """A line per row: each seed a mark, mean and spread in words."""
    axes.axvline(50, color="black", linestyle="--", linewidth=0.8)
    axes.text(50, -0.55, "chance", ha="center", va="bottom")
    for height, (row, runs) in enumerate(rows.items()):
        values = [run.accuracy for run in runs]
        offsets = [height + 0.2 * (place - (len(runs) - 1) / 2) for place in range(len(runs))]
        axes.scatter(values, offsets, color=COLOURS[row], marker=MARKERS[row], s=22, zorder=3)
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        text = f"{statistics.mean(values):.1f} %{spread}\n{runs[0].parameters:,} parameters"
        axes.text(104, height, text, va="center")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlim=(0, 102), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("validation accuracy in %: one mark per seed; mean ± standard deviation")
    axes.grid(axis="x", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/carrier_tokens"), help="folder of the training runs")
    parser.add_argument("--picture", type=Path, default=Path("docs/carrier-tokens.png"))
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("Two marks, same or different")
    measured = {
        row: [run(row, seed, arguments.runs / f"{number}-seed{seed}") for seed in arguments.seeds]
        for number, row in enumerate((WINDOWS, SILENT, CARRIERS))
    }
    results = {" ".join(row.split()): summary(runs) for row, runs in measured.items()}
    for row, result in results.items():
        print(f"  {row:<42} {result['mean']} % +- {result['spread']}  {result['parameters']:,} parameters")
    draw(measured, arguments.picture)
    report("carrier_tokens", results, output=arguments.output)
