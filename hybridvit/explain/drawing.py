"""What is drawn of a model and a picture: each drawing has a picture, a caption, and the numbers behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hybridvit.errors import UsageError, plural
from hybridvit.explain.activation import (
    Method,
    Target,
    class_activation,
    predicted,
    rank_correlation,
    with_random_last_stage,
)
from hybridvit.explain.kernels import depthwise_kernels
from hybridvit.explain.maps import (
    PictureMap,
    block_map,
    carrier_share,
    plain_map,
    plain_rollout,
    rollout,
    window_matrix,
)
from hybridvit.explain.pictures import (
    beside,
    bright,
    enlarged,
    in_rows,
    logarithmic,
    over,
    signed,
    with_lines,
    with_mark,
)
from hybridvit.explain.positions import block_positions
from hybridvit.explain.receptive import SHARES, receptive_field
from hybridvit.explain.recording import StageRecord, record_attention
from hybridvit.models.backbone import Backbone
from hybridvit.models.hat.position import MAX_BIAS


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One picture of the page."""

    name: str  # of its file
    title: str
    caption: str
    picture: Image.Image
    numbers: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Explaining:
    """What is asked of a picture."""

    query: tuple[float, float] = (0.5, 0.5)  # row and column of the token that is followed, as shares of the picture
    block: int | None = None  # from 1; the last by default
    head: int | None = None  # from 0; the mean by default
    window: int | None = None  # from 0, whose matrix is drawn; the mean by default
    method: Method = "grad"
    stage: int | None = None  # from 1, of class maps and fields; the last map by default
    target: Target | None = None  # what is predicted by default
    check: bool = False


def draw_attention(
    model: Backbone, image: Float[Tensor, "1 c h w"], shown: Image.Image, asked: Explaining
) -> list[Drawing]:
    """The attention of every stage that has some, for one query. Raises UsageError as `record_attention`."""
    recording, drawings = record_attention(model, image), []
    for stage in recording.stages:
        drawings += _of_stage(stage, shown, asked)
    if recording.maps:
        index = _index(asked.block, len(recording.maps))
        one = plain_map(recording.maps[index], head=asked.head)
        drawings.append(_over(one, "one block", shown, asked, "attention-block"))
        drawings.append(_matrix(one.matrix, one.name, 0, "All pixels of the map"))
        together = plain_rollout(recording.maps[: index + 1], head=asked.head)
        drawings.append(_over(together, "rollout", shown, asked, "attention-rollout"))
    return drawings


def draw_classes(
    model: Backbone, image: Float[Tensor, "1 c h w"], shown: Image.Image, asked: Explaining
) -> list[Drawing]:
    """The map of a class, or of the difference of two. Raises UsageError as `class_activation`."""
    target = asked.target or predicted(model, image)
    found = class_activation(model, image, target, method=asked.method, stage=asked.stage)
    values = found.cpu().numpy()
    about = _named(model, target.label)
    if target.against is not None:
        about += f" rather than {_named(model, target.against)}"
    elif asked.target is None:
        about += ", the answer"
    caption = (
        f"What speaks for {about} (red) and against it (blue): {values.min():.3g} to {values.max():.3g}, "
        f"{(values > 0).mean():.0%} of the places positive. {asked.method}, "
        f"{values.shape[0]} x {values.shape[1]} places, raw."
    )
    if values.size == 1:
        caption += " One place says nothing of where: --stage takes an earlier map."
    if asked.check:
        other = class_activation(with_random_last_stage(model), image, target, method=asked.method, stage=asked.stage)
        kept = rank_correlation(found, other)
        told = "none: a map has one value alone" if np.isnan(kept) else f"{kept:.2f}"
        caption += f" Rank correlation with the last stage's weights shuffled: {told}."
    picture = over(shown, signed(values))
    return [Drawing(name="cam", title="Class activation", caption=caption, picture=picture, numbers={"map": values})]


def draw_field(model: Backbone, images: Float[Tensor, "b c h w"], asked: Explaining) -> list[Drawing]:
    """The effective receptive field over all pictures. Raises UsageError as `receptive_field`."""
    made = receptive_field(model, images, stage=asked.stage)
    side = max(made.gradient.shape)
    sides = ", ".join(f"{share:.0%}: {made.side_px(share)} px" for share in SHARES)
    caption = (
        f"What the centre of {'the last map' if asked.stage is None else f'the map of stage {asked.stage}'} depends "
        f"on; {plural(made.num_images, 'picture')} of {side} px. Side of the smallest "
        f"centred square with a share of the gradient: {sides}."
    )
    picture = enlarged(bright(made.picture.numpy()))
    numbers = {"gradient": made.gradient.numpy(), "sides_px": np.array([made.side_px(share) for share in SHARES])}
    return [Drawing(name="erf", title="Effective receptive field", caption=caption, picture=picture, numbers=numbers)]


def draw_positions(model: Backbone, image_size: tuple[int, int]) -> list[Drawing]:
    """Biases by offset and embeddings by place. Raises UsageError as `block_positions`."""
    drawings = []
    for block in block_positions(model, image_size):
        for kind, whose, bias, norm in (
            ("window", "tokens of a window", block.window_bias, block.window_norm),
            ("carrier", "carriers", block.carrier_bias, block.carrier_norm),
        ):
            if bias is not None:
                drawings.append(_biases(f"positions-{block.name}-{kind}", block.name, whose, bias.numpy()))
            if norm is not None:
                drawings.append(_lengths(f"embedding-{block.name}-{kind}", block.name, whose, norm.numpy()))
    return drawings


def _biases(name: str, block: str, whose: str, values: np.ndarray) -> Drawing:
    reach = np.abs(values - MAX_BIAS / 2).max()
    tiles = [enlarged(signed(head, middle=MAX_BIAS / 2, reach=reach)) for head in values]
    tiles = [tile.resize((160, max(1, 160 * tile.height // tile.width))) for tile in tiles]
    return Drawing(
        name=name,
        title=f"Position bias between {whose}",
        caption=f"{block}: {values.min():.2f} to {values.max():.2f} around 8, a square per head; the middle of each is "
        "no offset.",
        picture=in_rows(tiles, 4),
        numbers={"bias": values},
    )


def _lengths(name: str, block: str, whose: str, values: np.ndarray) -> Drawing:
    return Drawing(
        name=name,
        title=f"Position embedding of {whose}",
        caption=f"{block}: its length at each place, {values.min():.3g} to {values.max():.3g}; bright is long.",
        picture=enlarged(bright(values / (values.max() or 1.0))),
        numbers={"length": values},
    )


def draw_kernels(model: Backbone, *, channels: int = 8) -> list[Drawing]:
    """Every branch of some depthwise layers, and the folded kernel. Raises UsageError as `depthwise_kernels`."""
    drawings = []
    for layer in depthwise_kernels(model):
        rows = [*layer.branches.items(), ("folded", layer.folded)]
        tiles = [
            signed(weights.numpy(), reach=_largest(kernel[:channels])).resize((56, 56), Image.Resampling.NEAREST)
            for _, kernel in rows
            for weights in kernel[:channels]
        ]
        shares = ", ".join(f"{layer.share_inside(size):.0%} in {size} x {size}" for size in (1, 3, 5))
        names = ", ".join(f"{name} {_largest(kernel[:channels]):.2g}" for name, kernel in rows)
        caption = (
            f"Rows from above, with the largest weight of each, where its colours end: {names}. Columns: the first "
            f"channels. Of the folded kernel's squared weight {shares} around the centre."
        )
        if layer.max_difference is not None:
            caption += f" The sum of the branches and the folded kernel differ by {layer.max_difference:.1e}."
        drawings.append(
            Drawing(
                name=f"kernels-{layer.name}",
                title=layer.name,
                caption=caption,
                picture=in_rows(tiles, min(channels, len(layer.folded)), gap_px=3),
                numbers={name: kernel.numpy() for name, kernel in rows},
            )
        )
    return drawings


def side_by_side(ours: Sequence[Drawing], others: Sequence[Drawing], *, whose: tuple[str, str]) -> list[Drawing]:
    """The drawings of two models, those of one name as one; `whose` says which model each half is of.

    What one of them alone has stands by itself. The numbers of the second have names that begin with "beside_".
    """
    theirs = {each.name: each for each in others}
    drawings = []
    for each in ours:
        other = theirs.pop(each.name, None)
        if other is None:
            drawings.append(replace(each, title=f"{each.title}, {whose[0]} alone"))
            continue
        joined = replace(
            each,
            caption=f"Left, {whose[0]}: {each.caption} Right, {whose[1]}: {other.caption}",
            picture=beside(each.picture, other.picture),
            numbers=each.numbers | {f"beside_{name}": values for name, values in other.numbers.items()},
        )
        drawings.append(joined)
    alone = [replace(each, title=f"{each.title}, {whose[1]} alone") for each in theirs.values()]
    return [*drawings, *alone]


def _of_stage(stage: StageRecord, shown: Image.Image, asked: Explaining) -> list[Drawing]:
    index = _index(asked.block, len(stage.blocks))
    block = stage.blocks[index]
    matrix = window_matrix(block, window=asked.window, head=asked.head)
    assert block.layout is not None, "a block that has run was told its windows"
    carriers = block.layout.carriers.side**2
    told = "Inside a window, the mean over all" if asked.window is None else f"Inside window {asked.window}"
    if carriers:
        share = carrier_share(block)
        told += (
            f"; its {plural(carriers, 'carrier')} first. Of a token's attention "
            f"{share.min():.1e} to {share.max():.1e} goes there, by head"
        )
    return [
        _over(block_map(stage, index, head=asked.head), "one block", shown, asked, "attention-block"),
        _over(rollout(stage, index, head=asked.head), "rollout", shown, asked, "attention-rollout"),
        _matrix(matrix, block.name, carriers, told),
    ]


def _over(made: PictureMap, what: str, shown: Image.Image, asked: Explaining, name: str) -> Drawing:
    height, width = made.map_size
    down, across = asked.query
    row, column = min(int(down * height), height - 1), min(int(across * width), width - 1)
    values = made.of_query(row, column).numpy()
    caption = (
        f"{made.name}: where the token in the ring looks, on a logarithmic scale of four powers of ten; "
        f"{height} x {width} tokens."
    )
    if made.padding_mass > 1e-6:
        caption += f" {made.padding_mass:.1%} of all attention goes to the padding at the right and the bottom."
    picture = with_mark(over(shown, logarithmic(values)), (row + 0.5) / height, (column + 0.5) / width)
    numbers = {"matrix": made.matrix.numpy(), "order": made.order.numpy(), "query": values}
    title = f"Attention over the picture, {what}"
    return Drawing(name=f"{name}-{made.name}", title=title, caption=caption, picture=picture, numbers=numbers)


def _matrix(matrix: Tensor, name: str, carriers: int, told: str) -> Drawing:
    values = matrix.numpy()
    picture = enlarged(logarithmic(values))
    if carriers:
        picture = with_lines(picture, carriers / len(values))
    caption = f"{name}: {told}. Rows are queries, columns keys; logarithmic."
    return Drawing(
        name=f"attention-matrix-{name}",
        title="Attention matrix",
        caption=caption,
        picture=picture,
        numbers={"matrix": values},
    )


def _largest(kernel: Tensor) -> float:
    return kernel.abs().max().item()


def _index(block: int | None, count: int) -> int:
    if block is not None and not 1 <= block <= count:
        raise UsageError(f"--block is {block}, but there are {count} blocks: use 1 to {count}.")
    return count - 1 if block is None else block - 1


def _named(model: Backbone, label: int) -> str:
    names: Sequence[str] = model.card.class_names
    return f"'{names[label]}'" if label < len(names) else f"class {label}"


def stacked(images: Sequence[np.ndarray]) -> Float[Tensor, "b c h w"]:
    """Prepared pictures as one batch."""
    return torch.from_numpy(np.stack(images))
