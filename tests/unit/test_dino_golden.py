"""The head and its losses against the original's numbers: outputs, assignments, every loss, every gradient."""

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import relative_error
from dino import ARRAYS, KEYS, SIZES, filled, golden, golden_draws, golden_head, golden_maps, golden_objects

from hybridvit.tasks.detect.dino.attention import DeformableAttention
from hybridvit.tasks.detect.dino.detections import best_detections
from hybridvit.tasks.detect.dino.encoder import encoder_references
from hybridvit.tasks.detect.dino.levels import Levels, level_padding
from hybridvit.tasks.detect.dino.loss import DINOLoss
from hybridvit.tasks.detect.dino.matching import Costs, match
from hybridvit.tasks.detect.dino.names import to_released
from hybridvit.tasks.detect.dino.outputs import Predictions
from hybridvit.tasks.detect.dino.position import cell_code
from hybridvit.tasks.detect.dino.proposals import propose

OUTPUTS, LOSSES, GRADIENTS = 1e-4, 1e-5, 5e-3  # of the largest value, of the loss, of the gradient's norm
CASES = ["train_a", "train_b", "train_c"]  # 3 and 1 objects, 2 and 0, none
CPU = torch.device("cpu")
KIND_OF = {"ce": "class", "bbox": "l1", "giou": "giou"}


def assert_as_original(actual: torch.Tensor, name: str) -> None:
    expected = golden(name)
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < OUTPUTS, name


@pytest.fixture(scope="module")
def seen() -> SimpleNamespace:
    """What passes through the parts of the head in eval mode."""
    head, seen = golden_head().eval(), SimpleNamespace(normed=[], codes=[], positions=[], placed=[])
    for name in ("pyramid", "encoder", "two_stage"):
        head.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: setattr(seen, name, out))
    head.decoder.norm.register_forward_hook(lambda _, __, out: seen.normed.append(out))
    head.decoder.position.register_forward_pre_hook(lambda _, given: seen.codes.append(given[0]))
    head.decoder.position.register_forward_hook(lambda _, __, out: seen.positions.append(out))
    for layer in head.decoder.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.placed.append(given[2]))
    with torch.no_grad():
        seen.outputs = head(golden_maps(), golden("input/mask"))
    return seen


def test_padding_positions_and_references_are_those_of_the_original(seen: SimpleNamespace) -> None:
    levels = seen.pyramid.levels
    for level, shape in enumerate(levels.shapes):
        assert torch.equal(level_padding(golden("input/mask"), shape), golden(f"eval/mask_level{level}"))
    for level in (1, 3):
        assert_as_original(cell_code(~golden(f"eval/mask_level{level}"), 256), f"eval/pos_level{level}")
    assert_as_original(levels.valid_shares, "eval/valid_ratios")
    assert_as_original(encoder_references(levels), "eval/encoder_references")


def test_projected_maps_and_memory_are_those_of_the_original(seen: SimpleNamespace) -> None:
    lengths = seen.pyramid.levels.lengths
    projected = seen.pyramid.values.split(lengths, dim=1)
    assert_as_original(torch.stack([each.mean(1) for each in projected], dim=1), "eval/src_mean")
    assert_as_original(torch.stack([each.std(1, correction=0) for each in projected], dim=1), "eval/src_std")
    memory = seen.encoder.split(lengths, dim=1)
    padding = seen.pyramid.levels.padding.split(lengths, dim=1)
    valid = [[each[image][~pad[image]] for each, pad in zip(memory, padding, strict=True)] for image in (0, 1)]
    for name, of in (("mean", lambda x: x.mean(0)), ("std", lambda x: x.std(0, correction=0))):
        assert_as_original(torch.stack([torch.stack([of(x) for x in each]) for each in valid]), f"eval/memory_{name}")


def test_selected_tokens_are_those_of_the_original(seen: SimpleNamespace) -> None:
    selected, proposals = seen.two_stage, propose(seen.pyramid.levels)
    assert torch.equal(selected.tokens, golden("eval/topk"))
    assert_as_original(selected.logits, "eval/interm_logits")
    assert_as_original(selected.boxes, "eval/interm_boxes")
    chosen = proposals.logits.sigmoid().gather(1, selected.tokens[..., None].expand(-1, -1, 4))
    assert_as_original(chosen, "eval/interm_proposals")
    assert torch.equal(seen.outputs.proposed.boxes[0], selected.boxes)


def test_every_layers_answers_are_those_of_the_original(seen: SimpleNamespace) -> None:
    assert_as_original(seen.outputs.matching.logits, "eval/logits")
    assert_as_original(seen.outputs.matching.boxes, "eval/boxes")
    assert_as_original(torch.stack(seen.normed)[:, :, ::6, :32], "eval/hs")
    assert_as_original(seen.codes[0][1, :8], "eval/query_sine")
    assert_as_original(seen.positions[0][1, :8], "eval/query_pos")
    shares = seen.pyramid.levels.valid_shares.repeat(1, 1, 2)[:, None]
    references = golden("eval/references")[:-1, :, :, None] * shares  # the last one would have been the next layer's
    torch.testing.assert_close(torch.stack(seen.placed), references, rtol=0, atol=OUTPUTS)


def test_detections_are_those_of_the_original(seen: SimpleNamespace) -> None:
    found = best_detections(seen.outputs, 50)
    assert torch.equal(found.labels, golden("eval/post_labels"))
    assert_as_original(found.scores, "eval/post_scores")
    sides = torch.tensor([[width, height, width, height] for height, width in SIZES])
    assert_as_original(found.boxes * sides[:, None], "eval/post_boxes")


@pytest.mark.parametrize("case", CASES)
def test_denoising_losses_and_gradients_are_those_of_the_original(case: str) -> None:
    head, objects = golden_head(), golden_objects(case)
    layout = head.denoising.layout(objects)
    draws = None
    if layout is None:
        assert ARRAYS[f"{case}/dn_groups"].tolist() == [1, 0]  # a group without queries
    else:
        draws = golden_draws(case)
        assert [layout.groups, layout.num_queries] == ARRAYS[f"{case}/dn_groups"].tolist()
        assert torch.equal(layout.unseen(60, CPU), golden(f"{case}/attn_mask"))
        copies = head.denoising(objects, layout, draws)
        rows = golden(f"{case}/dn_query_labels")
        assert torch.equal(copies.contents, head.denoising.labels(rows.clamp(min=0)) * (rows >= 0)[..., None])
        assert_as_original(copies.logits, f"{case}/dn_query_boxes")
    outputs = head(golden_maps(), golden("input/mask"), objects, draws)
    assert_as_original(outputs.matching.logits, "eval/logits")
    assert_as_original(outputs.matching.boxes, "eval/boxes")
    if outputs.denoising is not None:
        assert_as_original(outputs.denoising.logits, f"{case}/dn_logits")
        assert_as_original(outputs.denoising.boxes, f"{case}/dn_boxes")
    together = Predictions(*map(torch.cat, zip(outputs.matching, outputs.proposed, strict=True)))
    assignment = match(together, objects, Costs())
    assert torch.equal(assignment.queries, golden(f"{case}/match"))
    assert all(each.tolist() == list(range(each.numel())) for each in assignment.objects)
    losses = DINOLoss()(outputs, objects)
    *parts, total = ARRAYS[f"{case}/losses"].tolist()
    named = dict(zip(map(our_name, KEYS["loss_names"]), parts, strict=True))
    assert {name: part.item() for name, part in losses.parts.items()} == pytest.approx(named, rel=LOSSES, abs=LOSSES)
    assert losses.total.item() == pytest.approx(total, rel=LOSSES)
    losses.total.backward()
    assert_gradients_are_those_of_the_original(head, case)


def our_name(theirs: str) -> str:
    """Of a loss: "loss_bbox_dn_0" is our "l1_denoising_layer_0"; the last layer's have no number there."""
    kind, *rest = theirs.removeprefix("loss_").split("_")
    last = KEYS["config"]["dec"] - 1
    if rest == ["interm"]:
        return f"{KIND_OF[kind]}_proposed"
    place = f"layer_{rest[-1] if rest and rest[-1].isdigit() else last}"
    return f"{KIND_OF[kind]}_denoising_{place}" if "dn" in rest else f"{KIND_OF[kind]}_{place}"


def assert_gradients_are_those_of_the_original(head: torch.nn.Module, case: str) -> None:
    """Norm and one projection of each, which has one even where it is zero; some in full."""
    gradients = to_released({name: parameter.grad for name, parameter in head.named_parameters()})
    norms, probes = ARRAYS[f"{case}/grad_norm"], ARRAYS[f"{case}/grad_probe"]
    for name, norm, probe in zip(KEYS["parameters"], norms, probes, strict=True):
        gradient = gradients[name].double().numpy()
        seed = np.random.default_rng(zlib.crc32(f"probe.{name}".encode()))
        direction = seed.standard_normal(gradient.shape, dtype=np.float32)
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=GRADIENTS), name
        assert (gradient * direction).sum() == pytest.approx(probe, abs=GRADIENTS * norm), name
        if f"{case}/grad_{name}" in ARRAYS:
            expected = ARRAYS[f"{case}/grad_{name}"]
            assert np.linalg.norm(gradient - expected) < GRADIENTS * norm


def test_deformable_attention_is_that_of_the_original() -> None:
    sizes = KEYS["config"]["attn"]
    dim, num_levels = sizes["d_model"], sizes["n_levels"]
    names = {"offsets": "sampling_offsets", "weights": "attention_weights", "value": "value_proj", "out": "output_proj"}
    attention = DeformableAttention(
        dim, num_heads=sizes["n_heads"], num_levels=num_levels, num_points=sizes["n_points"]
    )
    state = {}
    for name, value in attention.state_dict().items():
        part, leaf = name.split(".")
        state[name] = filled(f"attn.{names[part]}.{leaf}", list(value.shape))
    attention.load_state_dict(state)
    shapes = [tuple(shape) for shape in ARRAYS["attn/shapes"].tolist()]
    padded, whole = Levels.of(shapes, golden("attn/mask"), CPU), Levels.of(shapes, None, CPU)
    references = golden("attn/reference")
    for places, levels, name in (
        (references[..., :2], padded, "out_points"),
        (references, padded, "out_boxes"),
        (references, whole, "out_boxes_nomask"),
    ):
        with torch.no_grad():
            answer = attention(golden("attn/query"), places, golden("attn/value"), levels)
        assert_as_original(answer, f"attn/{name}")


def test_refused_proposals_are_those_of_the_original() -> None:
    shapes = [tuple(shape) for shape in ARRAYS["proposals/shapes"].tolist()]
    proposals = propose(Levels.of(shapes, golden("proposals/mask"), CPU))
    assert torch.equal(proposals.kept, golden("proposals/kept"))
    expected = golden("proposals/logits")
    assert torch.equal(proposals.logits.isinf(), expected.isinf())
    finite = ~expected.isinf()
    assert relative_error(proposals.logits[finite], expected[finite]) < OUTPUTS
