"""Our names of a head's tensors and those of the released checkpoints (IDEA-Research/DINO).

No tensor changes shape or value on the way. Where the layers of the decoder share their heads, a released file has each
head once per layer, and all of these twice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridvit.errors import CheckpointError
from hybridvit.models.key_map import Row, Table

PARALLEL, BACKBONE = "module.", re.compile(r"backbone\.0\.(body\.)?")
TWICE = "transformer.decoder."  # before the second names of the decoder's heads
HEADS = re.compile(r"decoder\.(class|box)_heads\.(\d+)\.")


def _attention(ours: str, theirs: str) -> tuple[Row, ...]:
    return (
        Row(f"{ours}.offsets", f"{theirs}.sampling_offsets"),
        Row(f"{ours}.weights", f"{theirs}.attention_weights"),
        Row(f"{ours}.value", f"{theirs}.value_proj"),
        Row(f"{ours}.out", f"{theirs}.output_proj"),
    )


ENCODER, DECODER = "encoder.layers.#", "decoder.layers.#"
THEIR_ENCODER, THEIR_DECODER = f"transformer.{ENCODER}", f"transformer.{DECODER}"
NAMES = Table(
    (
        Row("pyramid.projections.#.conv", "input_proj.#.0"),
        Row("pyramid.projections.#.norm", "input_proj.#.1"),
        Row("pyramid.level_vectors", "transformer.level_embed"),
        *_attention(f"{ENCODER}.attention", f"{THEIR_ENCODER}.self_attn"),
        Row(f"{ENCODER}.attention_norm", f"{THEIR_ENCODER}.norm1"),
        Row(f"{ENCODER}.mlp.layers.0", f"{THEIR_ENCODER}.linear1"),
        Row(f"{ENCODER}.mlp.layers.1", f"{THEIR_ENCODER}.linear2"),
        Row(f"{ENCODER}.mlp_norm", f"{THEIR_ENCODER}.norm2"),
        Row("two_stage.project", "transformer.enc_output"),
        Row("two_stage.norm", "transformer.enc_output_norm"),
        Row("two_stage.class_head", "transformer.enc_out_class_embed"),
        Row("two_stage.box_head.layers.#", "transformer.enc_out_bbox_embed.layers.#"),
        Row("contents", "transformer.tgt_embed.weight"),
        Row("denoising.labels", "label_enc"),
        Row(f"{DECODER}.attention.in_proj_weight", f"{THEIR_DECODER}.self_attn.in_proj_weight"),
        Row(f"{DECODER}.attention.in_proj_bias", f"{THEIR_DECODER}.self_attn.in_proj_bias"),
        Row(f"{DECODER}.attention.out_proj", f"{THEIR_DECODER}.self_attn.out_proj"),
        Row(f"{DECODER}.attention_norm", f"{THEIR_DECODER}.norm2"),
        *_attention(f"{DECODER}.cross_attention", f"{THEIR_DECODER}.cross_attn"),
        Row(f"{DECODER}.cross_attention_norm", f"{THEIR_DECODER}.norm1"),
        Row(f"{DECODER}.mlp.layers.0", f"{THEIR_DECODER}.linear1"),
        Row(f"{DECODER}.mlp.layers.1", f"{THEIR_DECODER}.linear2"),
        Row(f"{DECODER}.mlp_norm", f"{THEIR_DECODER}.norm3"),
        Row("decoder.norm", "transformer.decoder.norm"),
        Row("decoder.position.layers.#", "transformer.decoder.ref_point_head.layers.#"),
        Row("decoder.class_heads.#", "class_embed.#"),
        Row("decoder.box_heads.#.layers.#", "bbox_embed.#.layers.#"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Released:
    """A released checkpoint taken apart."""

    head: dict[str, Tensor]  # by our names; those without a translation stand for themselves
    backbone: dict[str, Tensor]  # by its own names: torchvision's for ResNet
    shared_heads: bool  # whether all layers of the decoder have the same heads


def from_released(tensors: Mapping[str, Tensor], source: object = "The checkpoint") -> Released:
    """The tensors of a released checkpoint (its "model" or "ema_model") by our names.

    Raises CheckpointError, naming `source`, if two names of one tensor hold different values.
    """
    head: dict[str, Tensor] = {}
    backbone: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(PARALLEL)
        found = BACKBONE.match(name)
        if found:
            backbone[name[found.end() :]] = tensor
            continue
        first = name.removeprefix(TWICE)
        ours = NAMES.to_ours(name) or NAMES.to_ours(first) or name
        if not torch.equal(head.setdefault(ours, tensor), tensor):
            raise CheckpointError(
                f"{source}: '{first}' and '{TWICE}{first}' are two names of one tensor, but hold different values. The "
                "file was edited or is damaged: use another copy."
            )
    return _with_shared_heads(head, backbone)


def to_released(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, without the backbone: heads that layers share stand there for each layer, and all of them twice.

    Raises CheckpointError for a tensor that released checkpoints do not have.
    """
    depth = 1 + max(int(found[1]) for found in map(re.compile(r"decoder\.layers\.(\d+)").match, head) if found)
    is_shared = not any(found and found[2] != "0" for found in map(HEADS.match, head))
    renamed: dict[str, Tensor] = {}
    for name, tensor in head.items():
        found = HEADS.match(name)
        copies = range(depth) if found and is_shared else (None,)
        for copy in copies:
            theirs = NAMES.to_theirs(name if copy is None else HEADS.sub(rf"decoder.\1_heads.{copy}.", name))
            if theirs is None:
                raise CheckpointError(
                    f"'{name}' has no name in the released checkpoints of DINO. Save this model with save_checkpoint."
                )
            renamed[theirs] = tensor
            if found:
                renamed[TWICE + theirs] = tensor
    return renamed


def _with_shared_heads(head: dict[str, Tensor], backbone: dict[str, Tensor]) -> Released:
    first = {name: HEADS.sub(r"decoder.\1_heads.0.", name) for name in head if HEADS.match(name)}
    is_shared = all(torch.equal(head[name], head[of_first]) for name, of_first in first.items())
    if is_shared:
        head = {name: tensor for name, tensor in head.items() if first.get(name, name) == name}
    return Released(head=head, backbone=backbone, shared_heads=is_shared)
