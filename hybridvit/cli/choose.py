"""`hybridvit choose`: which model, runtime and precision on this device?"""

from json import dumps
from typing import TYPE_CHECKING

from hybridvit.cli.output import ended
from hybridvit.cli.progress import status_line
from hybridvit.cli.table import aligned, pairs
from hybridvit.errors import UsageError
from hybridvit.measure.options import CHOOSE_DEFAULTS, ChooseOptions
from hybridvit.stderr import remark

if TYPE_CHECKING:
    from hybridvit.measure.choose import Choice, Configuration


def choose(*, options: ChooseOptions = CHOOSE_DEFAULTS, json: bool = False) -> int:
    """Find the most accurate model that is fast enough on this device, or the fastest way to run one.

    With --max_latency_ms the answer is the most accurate configuration whose median time per image is below that.
    Without it, the fastest one that loses at most --max_drop: points of top-1, or the unit of another task. Everything
    is measured here and now, in one run; the table is the evidence. Accuracies of models by name are published ones; a
    checkpoint's are measured on your images (--data), for each runtime and precision.

    Examples:
      hybridvit choose --max_latency_ms 8 --runtime openvino
      hybridvit choose --models fastvit_t8 --precisions fp32 bf16 int8
      hybridvit choose --models runs/digits/model.safetensors --data runs/data/digits/test \
--calibration runs/data/digits/train --precisions fp32 bf16 int8 --files deployed

    Args:
        json: one line of JSON.
    """
    from hybridvit.data.scan import tell_left_out
    from hybridvit.measure.choose import choose as run_choose

    tell_left_out((options.data, options.calibration), remark)
    with status_line() as show:
        choice = run_choose(options, show=show)
    print(dumps(_as_dict(choice), ensure_ascii=False) if json else _text(choice))
    if not choice.result.is_complete:
        return ended(is_complete=False)
    if choice.chosen is None:
        raise UsageError(
            f"Nothing fits: {choice.rule}. Allow more time or a larger loss, or name other models, runtimes or "
            "precisions."
        )
    return 0


def _as_dict(choice: "Choice") -> dict[str, object]:
    return {
        "chosen": choice.chosen and choice.chosen.to_dict(),
        "rule": choice.rule,
        "accuracy_from": choice.accuracy_from,
        "configurations": [each.to_dict() for each in choice.configurations],
        "left_out": choice.left_out,
        "result": choice.result.to_dict(),
    }


def _text(choice: "Choice") -> str:
    quantity = choice.quantity
    score = f"{quantity.title} {quantity.unit}".rstrip()
    header = ("", "model", "runtime", "precision", "median ms", "95 % interval", "p99", score, "drop", "speed")
    lines: list[tuple[str, ...]] = [header]
    lines += [_line(each, is_chosen=each is choice.chosen) for each in choice.configurations]
    parts = [aligned(lines, left=4), "", pairs(choice.result.machine.lines())]
    parts += [
        f"  Rule: {choice.rule}.",
        f"  {quantity.title}: {choice.accuracy_from}; drop: against the checkpoint in PyTorch; speed: times as fast as "
        "the ordinary way\n  (timm's model where it has it, PyTorch, eager, folded, fp32, batch 1), in the same run.",
    ]
    parts += [f"  Left out: {reason}" for reason in choice.left_out]
    parts += [f"  Note: {warning}" for warning in choice.result.warnings()]
    if choice.chosen is not None:
        parts += ["", _sentence(choice.chosen)]
    return "\n".join(parts)


def _line(each: "Configuration", *, is_chosen: bool) -> tuple[str, ...]:
    record = each.record
    return (
        "->" if is_chosen else "",
        each.model,
        record["runtime"],
        record["precision"],
        f"{record['median_ms']:.2f}",
        f"{record['low_ms']:.2f} - {record['high_ms']:.2f}",
        f"{record['p99_ms']:.2f}",
        "-" if each.score is None else each.quantity.number(each.score),
        "-" if each.drop is None else f"{each.drop:+.{each.quantity.decimals}f}",
        "-" if each.speed is None else f"{each.speed:.2f}x",
    )


def _sentence(chosen: "Configuration") -> str:
    record = chosen.record
    faster = "" if chosen.speed is None else f", {chosen.speed:.1f} times as fast as the ordinary way"
    if chosen.drop is not None:
        quantity = chosen.quantity
        loss = f"{chosen.drop:+.{quantity.decimals}f} {quantity.unit_of_losses}".rstrip()
        cost = f"It loses {loss} of {quantity.title} on these images."
    elif record["precision"] == "fp32":
        cost = "It computes in fp32, so it loses nothing."
    else:
        cost = (
            f"What {record['precision']} costs in accuracy is not known without trained weights: give a checkpoint and "
            "--data."
        )
    where = f" ({record['model']})" if record["model"] != chosen.model else ""
    return (
        f"Choose {chosen.model} in {record['runtime']}, {record['precision']}{where}: {record['median_ms']:.2f} ms per "
        f"image{faster}. {cost}"
    )
