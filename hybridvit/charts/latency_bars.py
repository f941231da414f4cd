"""Latencies as bars: for models of which no accuracy was published, such as one's own checkpoints."""

from collections.abc import Collection, Sequence
from itertools import cycle

from hybridvit.charts.panels import Bar, BarPanel, BarSeries
from hybridvit.charts.tradeoff_rows import Record, by_setup, interval_of, interval_text, setup_names
from hybridvit.charts.tradeoff_styles import short_labels
from hybridvit.measure.result import of_one_load

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


MOST_MODELS = 12  # side by side; of more, only those that no other chart shows


def latency_panels(records: Sequence[Record], models: Collection[str]) -> list[BarPanel]:
    """One for each image size and batch at which one of `models` was measured, beside the others that were.

    A group of bars is a model, a colour a runtime and precision.
    """
    panels = []
    for load in of_one_load(records):
        asked = [record for record in load if record["model"] in models]
        if asked:
            panels.append(_panel(load if len({record["model"] for record in load}) <= MOST_MODELS else asked))
    return panels


def _panel(load: Sequence[Record]) -> BarPanel:
    labels = short_labels({record["model"]: record.get("top1_of") or "plain" for record in load})
    setups = by_setup(load)
    names = setup_names(list(setups))
    size, batch = load[0]["image_size"], load[0]["batch"]
    return BarPanel(
        title=f"Latency: {size} px, batch {batch}",
        x_label="",
        y_label="median latency, ms" if batch == 1 else f"median latency of a batch of {batch}, ms",
        groups=tuple(labels.values()),
        series=tuple(
            BarSeries(name=name, colour=colour, bars=tuple(_bar(model, rows) for model in labels))
            for name, colour, rows in zip(names, cycle(COLOURS), setups.values(), strict=False)
        ),
    )


def _bar(model: str, rows: Sequence[Record]) -> Bar:
    record = next((row for row in rows if row["model"] == model), None)
    if record is None:
        return Bar(value=None)
    median = record["median_ms"]
    return Bar(
        value=median,
        label=f"{median:.3g}",
        details=(model, f"{median:.2f} ms ({interval_text(record)})"),
        interval=interval_of(record),
    )
