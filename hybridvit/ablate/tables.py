"""The ablation tables of both papers: each row as options of a model, with what is published of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridvit.errors import UsageError, nearest

R, A = "repmixer", "attention"
PLAIN = {"head": "plain"}
SMALL_KERNELS = {"downsample_kernel": 3, "ffn_kernel": None, **PLAIN}
POOLFORMER = {
    "widths": (64, 128, 320, 512),
    "mixers": ("pooling",) * 4,
    "norm": "group",
    "stem": "dense",
    "downsample": "dense",
    "ffn_kernel": None,
    "overparameterised": (),
    **PLAIN,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: what differs from the base recipe, and what the paper prints."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of the model
    without: tuple[str, ...] = ()  # options of the base that have no effect in this row
    keys: Mapping[str, Any] = field(default_factory=dict)  # of the recipe, by dotted name
    model: str = ""  # another variant than the base's
    against: str = ""  # the row to compare with; that of the table where it is empty
    published: float | None = None  # top-1 in %, or its change where the table prints changes
    published_note: str = ""  # what else is printed: time, throughput
    parameters_millions: float | None = None
    multiply_adds_billions: float | None = None


@dataclass(frozen=True, kw_only=True)
class AblationTable:
    """A table of a paper. `rows` by name; all but `baseline` are compared with it, or with their own `against`."""

    title: str
    recipe: str  # the base, where none is given
    baseline: str
    rows: Mapping[str, Row]
    prints_changes: bool = False  # what is published of a row is the change of top-1 from the baseline

    def against(self, name: str) -> str:
        """The row that `name` is compared with."""
        return self.rows[name].against or self.baseline

    def published_change(self, name: str) -> float | None:
        """Points of top-1 by which the paper's row differs from the one that it is compared with."""
        mine, other = self.rows[name].published, self.rows[self.against(name)].published
        if mine is None or self.prints_changes:
            return mine
        return None if other is None else round(mine - other, 2)


def find_table(name: str) -> AblationTable:
    """The table of that name. Raises UsageError with the nearest names."""
    if name not in TABLES:
        raise UsageError(f"There is no table '{name}' to run. {nearest(name, TABLES)}.")
    return TABLES[name]


def _kernel(size: int, top1: float, giga: float) -> Row:
    options = {"ffn_kernel": size, "downsample_kernel": size, **PLAIN}
    millions = 8.7 if size < 7 else 8.8
    return Row(options=options, published=top1, parameters_millions=millions, multiply_adds_billions=giga)


def _fastvit_1() -> AblationTable:
    dense: dict[str, Any] = {"parameters_millions": 11.9, "multiply_adds_billions": 2.4}
    thin: dict[str, Any] = {"parameters_millions": 8.7, "multiply_adds_billions": 1.7}
    rows = {
        "poolformer at 224": Row(
            options=POOLFORMER,
            keys={"data.image_size": 224},
            published=77.2,
            published_note="1.50 ms",
            parameters_millions=11.9,
            multiply_adds_billions=1.8,
        ),
        "poolformer at 256": Row(options=POOLFORMER, published=77.6, published_note="2.25 ms", **dense),
        "repmixer": Row(options=POOLFORMER | {"mixers": (R,) * 4}, published=78.5, published_note="1.58 ms", **dense),
        "factorised": Row(
            options=SMALL_KERNELS | {"overparameterised": ()}, published=78.0, published_note="1.26 ms", **thin
        ),
        "overparameterised": Row(options=SMALL_KERNELS, published=78.9, published_note="1.26 ms", **thin),
        "large kernel FFN": Row(
            options={"downsample_kernel": 3, **PLAIN},
            published=79.4,
            published_note="1.33 ms",
            parameters_millions=8.7,
            multiply_adds_billions=1.8,
        ),
        "large kernel patch embedding": Row(
            options=PLAIN,
            published=79.8,
            published_note="1.40 ms",
            parameters_millions=8.8,
            multiply_adds_billions=1.8,
        ),
    }
    title = "FastViT Table 1: from PoolFormer to FastViT"
    return AblationTable(title=title, recipe="fastvit_s12", baseline="poolformer at 256", rows=rows)


def _fastvit_3() -> AblationTable:
    rows = {}
    for size, (plain, over), hours in (("sa12", (80.0, 80.6), (31.3, 33.4)), ("sa36", (83.3, 83.6), (73.5, 76.7))):
        model, first = f"fastvit_{size}", f"{size} without"
        rows[first] = Row(
            model=model, options={"overparameterised": ()}, published=plain, published_note=f"{hours[0]} h"
        )
        rows[f"{size} with"] = Row(model=model, against=first, published=over, published_note=f"{hours[1]} h")
    title = "FastViT Table 3: training without and with over-parameterisation"
    return AblationTable(title=title, recipe="fastvit_sa12", baseline="sa12 without", rows=rows)


def _fastvit_4() -> AblationTable:
    two = (R, R, A, A)
    rows = {
        "V1": Row(options=SMALL_KERNELS, published=78.9, published_note="1.3 ms", parameters_millions=8.7),
        "V2": Row(
            options=SMALL_KERNELS | {"mixers": (R, R, R, A)},
            published=79.9,
            published_note="1.5 ms",
            parameters_millions=10.8,
        ),
        "V3": Row(
            options=SMALL_KERNELS | {"mixers": two}, published=81.0, published_note="3.7 ms", parameters_millions=12.4
        ),
        "V4": Row(options=PLAIN, published=79.8, published_note="1.4 ms", parameters_millions=8.8),
        "V5": Row(
            options=PLAIN | {"mixers": (R, R, R, A)},
            published=80.6,
            published_note="1.6 ms",
            parameters_millions=10.9,
        ),
    }
    title = "FastViT Table 4: attention against large kernels"
    return AblationTable(title=title, recipe="fastvit_s12", baseline="V1", rows=rows)


def _fastvit_s1() -> AblationTable:
    rows = {"baseline": Row(options=PLAIN, published=79.8)}
    for name, option, top1, note in (
        ("layer norm", {"norm": "layer"}, 79.7, "1.7 ms"),
        ("relu", {"activation": "relu"}, 79.4, "1.3 ms"),
        ("silu", {"activation": "silu"}, 79.7, "1.4 ms"),
        ("attention in 1 stage", {"mixers": (R, R, R, A)}, 80.6, ""),
    ):
        rows[name] = Row(options=PLAIN | option, published=top1, published_note=note)
    for name, mixers, top1, note, giga in (
        ("attention in 2 stages", (R, R, A, A), 81.2, "3.7 ms", 2.54),
        ("attention in 3 stages", (R, A, A, A), 81.5, "5.0 ms", 3.21),
        ("attention in 4 stages", (A, A, A, A), 82.0, "11.7 ms", 7.65),
    ):
        options = PLAIN | {"mixers": mixers}
        rows[name] = Row(options=options, published=top1, published_note=note, multiply_adds_billions=giga)
    title = "FastViT Table S-1: norms, activations, stages with attention"
    return AblationTable(title=title, recipe="fastvit_s12", baseline="baseline", rows=rows)


def _fastvit_s2() -> AblationTable:
    printed = ((3, 78.9, 1.7), (5, 79.5, 1.8), (7, 79.8, 1.8), (9, 79.6, 1.8), (11, 79.8, 1.9))
    rows = {f"kernel {size}": _kernel(size, top1, giga) for size, top1, giga in printed}
    return AblationTable(
        title="FastViT Table S-2: sizes of the kernels", recipe="fastvit_s12", baseline="kernel 7", rows=rows
    )


def _fastvit_s3() -> AblationTable:
    everywhere = ("stem", "downsample", "mixer", "ffn", "head")
    rows = {
        "none": Row(options={"overparameterised": ()}, published=80.0),
        "default": Row(published=80.6, published_note="33.4 h"),
        "FFN too": Row(options={"overparameterised": everywhere}, published=80.6, published_note="40.1 h"),
    }
    title = "FastViT Table S-3: which parts are over-parameterised"
    return AblationTable(title=title, recipe="fastvit_sa12", baseline="none", rows=rows)


def _fastervit_5() -> AblationTable:
    rows = {}
    for variant, (twins, edgevit, hat) in enumerate(((80.8, 81.0, 82.1), (82.1, 82.5, 83.2), (82.9, 83.4, 84.2))):
        model, own = f"fastervit_{variant}", f"{variant} hierarchical"
        rows[own] = Row(model=model, published=hat)
        for name, top1 in (("twins", twins), ("edgevit", edgevit)):
            options = {"mixers": ("conv", "conv", name, name)}
            rows[f"{variant} {name}"] = Row(model=model, options=options, against=own, published=top1)
    title = "FasterViT Table 5: hierarchical attention against that of others"
    return AblationTable(title=title, recipe="fastervit_0", baseline="0 hierarchical", rows=rows)


def _fastervit_s1(*, recipe: str, mixers: tuple[str, ...], windows: tuple[int, ...]) -> AblationTable:
    """Table S.1; `mixers` of a model without carriers, and `windows` so large that one of them is a whole map."""
    changes: dict[str, tuple[dict[str, Any], float, float]] = {
        "no HAT block": ({"mixers": mixers}, -0.24, 1.08),
        "no carrier attention": ({"carrier_attention": False}, -0.13, 1.00),
        "no attention bias": ({"relative_bias": False}, -0.31, 1.00),
        "carriers from tokens in every layer": ({"carrier_source": "tokens"}, -0.16, 0.93),
        "no absolute bias": ({"position_embedding": False}, -0.07, 1.00),
        "carriers from a constant": ({"carrier_source": "constant"}, -0.05, 1.00),
        "window 14": ({"mixers": mixers, "windows": windows}, 0.10, 0.90),
    }
    rows = {"baseline": Row(published=0.0)}
    for name, (options, change, speed) in changes.items():
        without = ("propagate", "carrier_size") if "mixers" in options else ()
        note = f"throughput x {speed:.2f}"
        rows[name] = Row(options=options, without=without, published=change, published_note=note)
    title = "FasterViT Table S.1: parts of hierarchical attention"
    return AblationTable(title=title, recipe=recipe, baseline="baseline", rows=rows, prints_changes=True)


def _fastervit_s4() -> AblationTable:
    windows = {"mixers": ("conv", "conv", "window", "window"), "windows": (7, 7, 14, 7)}
    rows = {
        "window 7, carriers 2": Row(published=84.2),
        "window 7, carriers 1": Row(options={"carrier_size": 1}, published=83.9),
        "window 7, carriers 3": Row(options={"carrier_size": 3}, published=84.9),
        "window 14, carriers 0": Row(options=windows, published=84.4),
    }
    title = "FasterViT Table S.4: sizes of windows and carriers"
    return AblationTable(title=title, recipe="fastervit_2", baseline="window 7, carriers 2", rows=rows)


def _fastervit_s7() -> AblationTable:
    printed = ((82.1, 81.7), (83.2, 82.8), (84.2, 83.8), (84.9, 84.5), (85.4, 84.9))
    rows = {}
    for variant, (conv, attention) in enumerate(printed):
        model, own = f"fastervit_{variant}", f"{variant} with"
        rows[own] = Row(model=model, published=conv)
        options = {"mixers": ("window", "window", "hat", "window")}
        rows[f"{variant} without"] = Row(model=model, options=options, against=own, published=attention)
    title = "FasterViT Table S.7: with and without convolutions in the first stages"
    return AblationTable(title=title, recipe="fastervit_0", baseline="0 with", rows=rows)


TABLES: dict[str, AblationTable] = {
    "fastvit-1": _fastvit_1(),
    "fastvit-3": _fastvit_3(),
    "fastvit-4": _fastvit_4(),
    "fastvit-s1": _fastvit_s1(),
    "fastvit-s2": _fastvit_s2(),
    "fastvit-s3": _fastvit_s3(),
    "fastervit-5": _fastervit_5(),
    "fastervit-s1": _fastervit_s1(
        recipe="fastervit_2", mixers=("conv", "conv", "window", "window"), windows=(7, 7, 14, 7)
    ),
    "fastervit-s1-small": _fastervit_s1(recipe="two_marks", mixers=("conv", "window"), windows=(3, 12)),
    "fastervit-s4": _fastervit_s4(),
    "fastervit-s7": _fastervit_s7(),
}
