"""Counts and the machine card."""

import json

import pytest
import torch

import hybridvit
from hybridvit.machine.facts import machine_card, usable_cores
from hybridvit.measure.counts import count, count_each, graph_nodes


@pytest.mark.parametrize(
    ("name", "training", "folded"),
    [("fastvit_t8", 4_026_232, 3_992_392), ("fastvit_sa12", 11_580_968, 11_539_432)],
)
def test_parameters_of_both_forms(name: str, training: int, folded: int) -> None:
    model = hybridvit.create_model(name).eval()
    assert count(model, (256, 256)).parameters == training
    assert count(hybridvit.fold(model), (256, 256)).parameters == folded


def test_attention_is_counted_and_folding_removes_multiply_adds() -> None:
    model = hybridvit.create_model("fastvit_sa12").eval()
    before, after = count(model, (256, 256)), count(hybridvit.fold(model), (256, 256))
    # two blocks, two products each, of 64 x 64 tokens x 512 channels
    assert after.by_kind["attention"] == 2 * 2 * 64 * 64 * 512
    assert after.multiply_adds < before.multiply_adds
    assert after.multiply_adds == sum(after.by_kind.values())
    assert f"{after.multiply_adds / 1e9:.1f}" == "1.9"  # as published


@pytest.mark.parametrize("name", ["fastvit_debug", "fastervit_debug"])
def test_counting_does_not_depend_on_precision_or_on_what_ran_before(name: str) -> None:
    model = hybridvit.create_model(name).eval()
    expected = count(model, (64, 96))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    assert count(model, (64, 96)) == expected
    assert count(model.to(torch.bfloat16), (64, 96)) == expected


def test_position_terms_are_constants_even_where_they_are_too_large_to_keep() -> None:
    with torch.device("meta"):
        model = hybridvit.create_model("fastervit_4_21k_768").eval()
    # 2304^2 pairs of 16 heads are 340 MB a block: recomputed in every call, but no part of what is counted
    assert count(model, (768, 768)).multiply_adds == count(hybridvit.fold(model), (768, 768)).multiply_adds


def test_folding_halves_the_graph() -> None:
    model = hybridvit.create_model("fastvit_debug").eval()
    assert graph_nodes(hybridvit.fold(model), (64, 64)) < 0.5 * graph_nodes(model, (64, 64))


def test_parts_add_up_to_the_whole_and_activations_are_what_products_give() -> None:
    model = hybridvit.create_model("fastvit_debug", folded=True)
    whole = count(model, (64, 64))
    head = torch.nn.Sequential(model.expand, model.head)
    parts = count_each({"stem": model.stem, "stages": model.stages, "head": head}, torch.empty(1, 3, 64, 64))
    assert sum(part.multiply_adds for part in parts.values()) == whole.multiply_adds
    assert sum(part.activations for part in parts.values()) == whole.activations
    convolution = torch.nn.Conv2d(3, 5, 3)
    assert count_each({"": convolution}, torch.empty(2, 3, 10, 10))[""].activations == 2 * 5 * 8 * 8


def test_counting_leaves_the_model_as_it_was() -> None:
    model = hybridvit.create_model("fastvit_debug")
    count(model, (32, 32))
    assert model.training
    assert next(model.parameters()).device.type == "cpu"


def test_the_machine_card_names_what_decides_a_latency() -> None:
    card = machine_card()
    assert card.cores == usable_cores() >= 1
    assert {"torch", "onnxruntime"} <= set(card.versions)
    assert [title for title, _ in card.lines()] == [
        "Processor", "Instruction sets", "GPU", "System", "Threading", "Libraries",
    ]  # fmt: skip
    json.dumps(card.to_dict())
