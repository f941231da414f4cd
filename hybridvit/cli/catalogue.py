"""`hybridvit list` and `hybridvit info`: what there is, and what is known of it."""

from dataclasses import asdict
from fnmatch import fnmatch
from json import dumps
from pathlib import Path

from hybridvit.card import Preprocessing
from hybridvit.cli.table import aligned, pairs
from hybridvit.data.imagenet import in_words
from hybridvit.errors import UsageError, nearest
from hybridvit.hub import hub_place
from hybridvit.models.registry import VARIANTS, Variant, find_variant


def list_models(*, pattern: str = "*", json: bool = False) -> None:
    """Show the models: size, cost, accuracy and latency as published.

    All figures are the authors' own, for the folded model; what this machine does is told by `hybridvit bench`, exact
    counts by `hybridvit info NAME`.

    Examples:
      hybridvit list
      hybridvit list --pattern '*sa*'
      hybridvit list --json | head -1

    Args:
        pattern: only names that match; * stands for anything, ? for one character.
        json: one JSON object per line, with sources and where the weights come from.
    """
    chosen = [variant for name, variant in VARIANTS.items() if fnmatch(name, pattern)]
    if not chosen:
        raise UsageError(f"No model matches '{pattern}'. {nearest(pattern, VARIANTS)}.")
    if json:
        for variant in chosen:
            print(dumps({"name": variant.name, **asdict(variant.published)}, ensure_ascii=False))
        return
    latencies = list(dict.fromkeys(_title(each.device, each.batch) for v in chosen for each in v.published.latencies))
    header = ("model", "input px", "params M", "madds G", "top-1 %", "distilled", *latencies)
    print(aligned([header, *(_row(variant, latencies) for variant in chosen)]))
    print(
        "\nAll figures are published by the authors. madds: multiply-adds; top-1: of the released weights on "
        "ImageNet-1k,\nplain and distilled. `hybridvit info NAME` has exact counts and all sources."
    )
    for (tags, licence), names in _weights(chosen).items():
        print(f"\nWeights of {', '.join(names)}: {', '.join(tags)}, fetched when asked for.\nLicence: {licence}")


def info(model: str, *, trust_changed: bool = False) -> None:
    """Tell what is known of a model, or what is inside a file.

    For a name: exact parameters and multiply-adds in both forms, published figures with their source, where weights
    come from and under which licence. For a checkpoint or an exported file: architecture, classes, preprocessing.

    Examples:
      hybridvit info fastvit_sa12
      hybridvit info runs/digits/model.safetensors
      hybridvit info model.onnx

    Args:
        model: a name from `hybridvit list`, a .safetensors, .pth, .ckpt or .onnx file, or hf://OWNER/NAME.
        trust_changed: take an exported file that was changed on purpose (simplified, converted to fp16).
    """
    if model in VARIANTS:
        _info_of_variant(VARIANTS[model])
    elif hub_place(model) is not None or Path(model).suffix or Path(model).exists():
        _info_of_file(model, trust_changed)
    else:
        find_variant(model)  # raises, with the nearest names


def _title(device: str, batch: int) -> str:
    return f"{device.partition(',')[0]}" + (f" b{batch}" if batch > 1 else "") + " ms"


def _row(variant: Variant, latencies: list[str]) -> tuple[str, ...]:
    published = variant.published
    milliseconds = {_title(each.device, each.batch): each.milliseconds for each in published.latencies}
    plain = [weights for tag, weights in published.weights if "dist" not in tag]
    distilled = [weights for tag, weights in published.weights if "dist" in tag]
    return (
        variant.name,
        str(published.image_size_px),
        _number(published.parameters_millions),
        _number(published.multiply_adds_billions),
        _number(plain[0].top1 if plain else published.top1),
        _number(distilled[0].top1 if distilled else published.top1_distilled),
        *(_number(milliseconds.get(title)) for title in latencies),
    )


def _weights(variants: list[Variant]) -> dict[tuple[tuple[str, ...], str], list[str]]:
    """Names of variants by the tags and the licence of their weights."""
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for variant in variants:
        if weights := variant.published.weights:
            groups.setdefault((tuple(tag for tag, _ in weights), weights[0][1].licence), []).append(variant.name)
    return groups


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _info_of_variant(variant: Variant) -> None:
    import torch

    from hybridvit.build import build
    from hybridvit.folding.fold import fold
    from hybridvit.measure.counts import count

    published = variant.published
    size = variant.preprocessing.image_size
    with torch.device("meta"):  # counts need no weights, and the largest would take gigabytes
        model = build(variant.name).eval()
    training, folded = count(model, size), count(fold(model), size)
    rows = [
        ("Input", f"{_preprocessing(variant.preprocessing)}; any size from 32 px works"),
        *(
            [("Answer", f"an embedding of {width} numbers, in the space of a text tower")]
            if (width := published.embedding_width)
            else []
        ),
        ("Parameters", f"{training.parameters:,} in training, {folded.parameters:,} folded"),
        ("Multiply-adds", f"{training.multiply_adds:,} in training, {folded.multiply_adds:,} folded"),
        *((f"  {kind}", f"{operations:,} folded") for kind, operations in folded.by_kind.items()),
    ]
    print(variant.name, pairs(rows), sep="\n")
    rows = [("Source", published.source)]
    if published.parameters_millions is not None:
        rows += [("Parameters", f"{published.parameters_millions} M")]
    if published.multiply_adds_billions is not None:
        rows += [("Multiply-adds", f"{published.multiply_adds_billions} G")]
    if published.top1 is not None:
        distilled = f", distilled {published.top1_distilled} %" if published.top1_distilled is not None else ""
        rows += [("Top-1", f"{published.top1} %{distilled} (ImageNet-1k)")]
    rows += [
        ("Latency", f"{each.milliseconds:.4g} ms, {each.device}, batch {each.batch}; {each.source}")
        for each in published.latencies
    ]
    print("\nPublished", pairs(rows), sep="\n")
    for tag, weights in published.weights:
        top1, of_towers = weights.top1, weights.zero_shot_top1
        rows = [
            *([("Top-1", f"{top1} % ({weights.source})")] if top1 else []),
            *([("Zero-shot top-1", f"{of_towers} %, by their text tower ({weights.source})")] if of_towers else []),
            *([("Input", _preprocessing(weights.preprocessing))] if weights.preprocessing else []),
            ("From", f"{weights.hub_id} on the Hugging Face hub, or {weights.url}"),
            ("Licence", weights.licence),
        ]
        print(f"\nWeights '{tag}'", pairs(rows), sep="\n")


def _preprocessing(preprocessing: Preprocessing) -> str:
    height, width = preprocessing.image_size
    crop = f"{preprocessing.crop_mode} crop {preprocessing.crop_fraction}"
    crop = "padded with black" if preprocessing.crop_mode == "pad" else crop
    return f"{height}x{width} px, {preprocessing.interpolation}, {crop}"


def _info_of_file(path: str, trust_changed: bool) -> None:
    from hybridvit.loading import open_runner

    runner = open_runner(path, trust_changed=trust_changed)
    card = runner.card
    names = in_words(card.class_names)
    prepared = card.preprocessing
    levels = "" if prepared.levels is None else ", black and white at {:g} and {:g}".format(*prepared.levels)
    orientation = "" if prepared.exif_orientation else ", EXIF orientation ignored"
    classes = f"{len(names)}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    rows = [
        ("Architecture", card.architecture),
        ("Options", dumps(card.options) if card.options else "none"),
        ("Form", card.form),
        ("Runtime", runner.runtime),
        ("Input", f"{_preprocessing(prepared)}{orientation}{levels}"),
        ("Normalisation", f"mean {prepared.mean}, std {prepared.std}"),
        ("Classes", classes if names else "not named in the file"),
        *([("Embedding space", card.embedding_space)] if card.embedding_space else []),
        ("Source", card.source),
        ("Licence", card.licence or "not stated"),
    ]
    print(path, pairs(rows), sep="\n")
