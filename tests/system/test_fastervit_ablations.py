"""FasterViT's ablations by options alone: each row of the paper's tables has its cost, trains, folds and matters."""

import pytest
import torch
from conftest import relative_error
from torch import nn

import hybridvit
from hybridvit.ablate.tables import TABLES
from hybridvit.measure.counts import count

TABLE_5 = {  # multiply-adds in billions for variants 0, 1, 2: measured, published
    "twins": ((3.099, 4.813, 8.034), (3.0, 4.7, 8.0)),
    "edgevit": ((3.162, 4.920, 8.193), (3.2, 4.8, 8.5)),
}
S_1, S_4, S_7 = (TABLES[f"fastervit-{name}"].rows for name in ("s1", "s4", "s7"))
ROWS = {  # of Tables S.1, S.4, S.7: options, and multiply-adds in billions of fastervit_2 with them, measured
    "no HAT block (S.1)": (S_1["no HAT block"].options, 8.293),
    "no carrier attention (S.1)": (S_1["no carrier attention"].options, 8.682),
    "no attention bias (S.1)": (S_1["no attention bias"].options, 8.759),
    "carriers pooled and propagated in every layer (S.1)": (S_1["carriers from tokens in every layer"].options, 8.760),
    "no absolute bias (S.1)": (S_1["no absolute bias"].options, 8.759),
    "carriers from a constant (S.1)": (S_1["carriers from a constant"].options, 8.758),
    "window 14 (S.1)": (S_1["window 14"].options, 8.470),
    "carriers 1x1 (S.4)": (S_4["window 7, carriers 1"].options, 8.410),
    "carriers 3x3 (S.4)": (S_4["window 7, carriers 3"].options, 9.345),
    "stages 1 and 2 with attention in windows (S.7)": (S_7["2 without"].options, 7.851),
}
ALL = {name: options for name, (options, _) in ROWS.items()} | {
    "Twins (5)": TABLES["fastervit-5"].rows["2 twins"].options,
    "EdgeViT (5)": TABLES["fastervit-5"].rows["2 edgevit"].options,
}
NARROW = {
    "depths": (1, 1, 2, 2),
    "widths": (8, 16, 32, 64),
    "num_heads": (1, 2, 4, 8),
    "stem_width": 8,
    "position_hidden": 16,
    "num_classes": 7,
    "propagate": True,
    "layer_scale_init": 0.5,
}


def narrow(options, **more) -> nn.Module:
    """A narrow FasterViT with the options of a row, less those that it leaves without effect."""
    kept = dict(NARROW)
    mixers = options.get("mixers", ("hat",))
    if "hat" not in mixers:
        del kept["propagate"]
    if {"hat", "window"}.isdisjoint(mixers):
        del kept["position_hidden"]
    return hybridvit.create_model("fastervit_2", **kept | options | more)


def shaken(model: nn.Module) -> nn.Module:
    """`model` in eval mode with every weight and statistic moved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5 * name.endswith("running_var"))
    return model.eval()


@pytest.mark.parametrize("variant", [0, *(pytest.param(each, marks=pytest.mark.nightly) for each in (1, 2))])
@pytest.mark.parametrize("mixer", TABLE_5)
def test_table_5_costs_what_is_published(mixer, variant):
    with torch.device("meta"):
        model = hybridvit.create_model(f"fastervit_{variant}", mixers=("conv", "conv", mixer, mixer)).eval()
    measured, published = (numbers[variant] for numbers in TABLE_5[mixer])
    for form in (model, hybridvit.fold(model)):
        assert count(form, (224, 224)).multiply_adds / 1e9 == pytest.approx(measured, abs=6e-4)
    assert measured == pytest.approx(published, rel=0.05)


@pytest.mark.nightly
@pytest.mark.parametrize("row", ROWS)
def test_multiply_adds_of_the_other_ablations(row):
    options, measured = ROWS[row]
    with torch.device("meta"):
        model = hybridvit.create_model("fastervit_2", **options)
    assert count(model, (224, 224)).multiply_adds / 1e9 == pytest.approx(measured, abs=6e-4)


@pytest.mark.parametrize("row", ALL)
def test_every_ablation_trains(row):
    model = narrow(ALL[row], drop_path_rate=0.2)
    model(torch.randn(2, 3, 232, 232)).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("row", ALL)
@torch.no_grad()
def test_every_ablation_folds_exactly_at_any_size(row):
    model = shaken(narrow(ALL[row]))
    folded = hybridvit.fold(model)
    assert hybridvit.fold_report(model, folded).left == ()
    for size in ((32, 32), (33, 64), (231, 290)):
        images = torch.randn(2, 3, *size)
        assert relative_error(folded(images), model(images)) < 1e-5


@pytest.mark.parametrize("row", ALL)
@torch.no_grad()
def test_every_ablation_changes_the_output(row):
    model, other = shaken(narrow({})), shaken(narrow(ALL[row]))
    shared = {
        name: value
        for name, value in model.state_dict().items()
        if name in other.state_dict() and other.state_dict()[name].shape == value.shape
    }
    other.load_state_dict(shared, strict=False)
    images = torch.randn(1, 3, 224, 224)
    assert relative_error(other(images), model(images)) > 1e-3


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=() if index % 3 == 0 else pytest.mark.nightly) for index, row in enumerate(ALL)]
)
@torch.no_grad()
def test_every_ablation_is_saved_with_its_options(row, tmp_path):
    model = shaken(narrow(ALL[row]))
    images = torch.randn(1, 3, 64, 96)
    for form in (model, hybridvit.fold(model)):
        hybridvit.save_checkpoint(form, tmp_path / "model.safetensors")
        again = hybridvit.load(tmp_path / "model.safetensors")
        assert again.card == form.card
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in form.state_dict().items())
        assert relative_error(again(images), form(images)) < 1e-5  # kernels may lie in memory otherwise


@pytest.mark.parametrize("kind", ["twins", "edgevit"])
@torch.no_grad()
def test_every_token_reaches_every_other(kind):
    """What the global attention is for: a far pixel's change arrives in one block."""
    model = shaken(narrow({"mixers": ("conv", "conv", kind, kind)}))
    body = model.stages[2].body.blocks[0]
    fmap = torch.randn(1, 32, 28, 28)
    changed = fmap.clone()
    changed[..., 0, 0] = torch.randn(32)
    assert ((body(changed) - body(fmap)).abs().amax(1) > 0).all()


@pytest.mark.parametrize(("option", "value"), [("windows", (7, 7, 7, 7)), ("carrier_size", 2), ("propagate", True)])
def test_options_without_effect_on_an_ablation_are_refused(option, value):
    with pytest.raises(hybridvit.errors.UsageError, match=f"{option} has no effect here"):
        hybridvit.create_model("fastervit_0", mixers=("conv", "conv", "twins", "edgevit"), **{option: value})
