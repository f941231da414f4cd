"""The curves of a training run, from its validations."""

from collections.abc import Mapping, Sequence

from hybridvit.quantity import Quantity
from hybridvit.report.content import Curve
from hybridvit.training.observe import Row

MOST_MARKS = 12  # of resumes in the curves


def curves_of(
    history: Sequence[Row], quantities: Sequence[Quantity], *, resumed_at: Sequence[float] = ()
) -> list[Curve]:
    """The loss, each quantity that tells something, learning rate and speed, over epochs; none without a validation.

    `resumed_at` are the epochs at which the run went on after a stop.
    """
    if not history:
        return []
    marks = [(epoch, "resumed") for epoch in sorted(set(resumed_at))[-MOST_MARKS:]]

    def curve(title: str, unit: str, lines: Mapping[str, str], *, from_zero: bool = False) -> Curve:
        points = {name: [(row["epoch"], row[key]) for row in history if key in row] for name, key in lines.items()}
        return Curve(
            title=title,
            x_label="epoch",
            y_label=unit,
            lines={name: line for name, line in points.items() if line},
            marks=marks,
            from_zero=from_zero,
        )

    return [
        curve("Loss", "", {"training": "train_loss", "validation": "loss", "validation, averaged": "ema_loss"}),
        *(
            curve(
                f"Validation {quantity.title}",
                quantity.unit,
                {"raw weights": quantity.name, "averaged weights": f"ema_{quantity.name}"},
            )
            for quantity in told(history, quantities)
        ),
        curve("Learning rate", "", {"learning rate": "lr"}, from_zero=True),
        curve("Speed", "", {"images per second": "images_per_second"}, from_zero=True),
    ]


def told(history: Sequence[Row], quantities: Sequence[Quantity]) -> list[Quantity]:
    """The quantities but the loss; without those that are always 100 %: the top-5 of four classes says nothing."""
    known = [quantity for quantity in quantities if all(quantity.name in row for row in history)]
    without_loss = [quantity for quantity in known if quantity.name != "loss"]
    telling = [each for each in without_loss if each.unit != "%" or any(row[each.name] < 100 for row in history)]
    return telling or without_loss[:1]
