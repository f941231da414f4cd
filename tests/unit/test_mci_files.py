"""The files that image towers come in: MobileCLIP's, open_clip's, timm's and FastVLM's, there and back."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import trained_like
from safetensors.torch import save_file
from torch import Tensor, nn

import hybridvit
from hybridvit.card import ModelCard
from hybridvit.checkpoints import load, load_weights
from hybridvit.checkpoints.checkpoint import save_upstream
from hybridvit.checkpoints.files import read_tensors
from hybridvit.checkpoints.keymaps import from_ours, to_ours
from hybridvit.checkpoints.matching import shapes_of, skeleton
from hybridvit.checkpoints.metadata import to_metadata
from hybridvit.errors import CheckpointError
from hybridvit.models.fastvit.mci_cards import FASTVLM_INPUT
from hybridvit.models.registry import find_variant
from hybridvit.pretrained import find_weights

APPLE = json.loads((Path(__file__).parents[1] / "golden" / "mci_keys.json").read_text())
Tensors = dict[str, Tensor]

TEXT = {"text.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(6, 2), "logit_scale": torch.tensor(4.6)}
LANGUAGE = {
    "lm_head.weight": torch.zeros(4, 2),
    "model.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2),
    "model.mm_projector.0.weight": torch.zeros(2, 2),
    "model.norm.weight": torch.zeros(2),
}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def tower() -> nn.Module:
    """The debug size with the projection of Apple's towers, which has no bias."""
    model = trained_like(hybridvit.create_model("fastvit_mci_debug"))
    with torch.no_grad():
        model.head.fc.bias.zero_()
    return model


LAYOUTS: dict[str, tuple[str, str, Tensors, str]] = {  # naming, prefix, what lies beside, what is said of that
    "mobileclip": ("apple", "image_encoder.model.", {"text_encoder.a.weight": torch.zeros(2)}, "text tower; 1 tensors"),
    "mobileclip2": ("timm", "module.visual.trunk.", under("module.", TEXT), "text tower, logit scale; 2 tensors"),
    "open_clip": ("timm", "visual.trunk.", TEXT, "text tower, logit scale; 2 tensors"),
    "fastvlm": ("apple", "model.vision_tower.vision_tower.model.", LANGUAGE, "language model, projector; 4 tensors"),
    "fastvlm_transformers": ("timm", "model.vision_tower.timm_model.", LANGUAGE, "language model, projector; 4"),
    "timm": ("timm", "", {}, ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_tower_alone_and_takes_it_back_bit_equal(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    naming, prefix, beside, said = LAYOUTS[layout]
    model = tower()
    is_vlm = layout.startswith("fastvlm")
    model = hybridvit.fold(model, released=True) if is_vlm else model
    upstream = from_ours(model.state_dict(), naming)
    if is_vlm:
        upstream = {name: value.bfloat16() for name, value in upstream.items()}
    if layout == "fastvlm_transformers":
        upstream = {name: value for name, value in upstream.items() if not name.startswith("head.")}
    path = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in (under(prefix, upstream) | beside).items()}, path)
    loaded = load(path)
    assert (loaded.card.architecture, loaded.card.form) == ("fastvit_mci_debug", "released" if is_vlm else "training")
    assert loaded.num_classes == (0 if layout == "fastvlm_transformers" else 16)
    state = model.state_dict()
    for name, value in loaded.state_dict().items():
        assert value.dtype == state[name].dtype, name
        assert torch.equal(value, state[name].bfloat16().float() if is_vlm else state[name]), name
    assert ("left aside: " + said in caplog.text) if said else ("left" not in caplog.text)
    back = from_ours(loaded.state_dict(), naming)
    assert {name: tuple(value.shape) for name, value in back.items()} == shapes_of(upstream)
    assert all(torch.equal(value, upstream[name].to(value.dtype)) for name, value in back.items())


@pytest.mark.parametrize("key", APPLE)
def test_names_and_shapes_are_those_of_apples_files(key: str) -> None:
    form, name = ("released", "fastvit_mci3") if key.startswith("fastvithd") else ("training", "fastvit_mci0")
    expected = skeleton(ModelCard(architecture=name, form=form)).state_dict()  # type: ignore[arg-type]
    prefix = next(iter(APPLE[key])).partition("patch_embed")[0]
    apple = {name.removeprefix(prefix): torch.empty(shape, device="meta") for name, shape in APPLE[key].items()}
    assert shapes_of(to_ours(apple, "apple")) == shapes_of(expected)
    upstream = shapes_of(from_ours({name: torch.zeros(value.shape) for name, value in expected.items()}, "apple"))
    assert upstream == shapes_of(apple)


def test_a_projection_with_a_bias_has_no_place_in_apples_layout(tmp_path: Path) -> None:
    model = trained_like(hybridvit.create_model("fastvit_mci_debug"))
    with torch.no_grad():
        model.head.fc.bias.fill_(0.1)
    with pytest.raises(CheckpointError, match=r"'head\.fc\.bias' is not zero, but the projection of Apple's FastViT"):
        save_upstream(model, tmp_path / "model.pt", "apple")
    save_upstream(model, tmp_path / "model.safetensors", "timm")
    assert torch.equal(load(tmp_path / "model.safetensors").head.fc.bias, model.head.fc.bias)


def test_two_towers_in_a_file_are_an_error(tmp_path: Path) -> None:
    one = from_ours(tower().state_dict(), "timm")
    both = under("student.", one) | under("teacher.", {name: value.clone() for name, value in one.items()})
    save_file(both, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"two models, under 'student\.' and under 'teacher\.'.*Save the tensors"):
        load(tmp_path / "model.safetensors")


def test_a_released_tower_cannot_be_trained_and_the_weights_that_can_are_named() -> None:
    with torch.device("meta"):
        released = hybridvit.fold(hybridvit.create_model("fastvit_mci3").eval(), released=True)
        model = hybridvit.create_model("fastvit_mci3")
    with pytest.raises(CheckpointError, match=r"branches of its layers .* pretrained='apple_mclip2_dfndr2b'"):
        load_weights(model, {name: torch.zeros(value.shape) for name, value in released.state_dict().items()})


def test_preprocessing_and_licence_belong_to_the_weights() -> None:
    mci0, mci3 = (find_variant(f"fastvit_{name}") for name in ("mci0", "mci3"))
    assert mci0.preprocessing.mean == (0.0,) * 3
    assert mci3.preprocessing.std == (0.26862954, 0.26130258, 0.27577711)
    assert (mci0.preprocessing.interpolation, mci0.preprocessing.crop_fraction) == ("bilinear", 1.0)
    inside = mci3.published.weights_of("model.safetensors", "model.vision_tower.vision_tower.model.")
    assert mci3.prepared_for(inside) == FASTVLM_INPUT
    assert mci3.published.weights_of("model.safetensors") is None
    for variant in (mci0, mci3):
        for _, weights in variant.published.weights:
            card = ModelCard(architecture=variant.name, licence=weights.licence)
            assert re.search("research only.*exported", card.licence_notice)
    assert ModelCard(architecture="fastvit_sa12", licence="Apple sample code licence").licence_notice == ""


def test_a_published_file_says_its_licence_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    variant = find_variant("fastvit_mci_debug")
    weights = dict(find_variant("fastvit_mci3").published.weights)["apple_fastvlm_0.5b"]
    monkeypatch.setattr(type(variant.published), "weights_of", lambda *_: weights)
    released = hybridvit.fold(tower(), released=True)
    save_file(
        under("model.vision_tower.timm_model.", from_ours(released.state_dict(), "timm")),
        tmp_path / "model.safetensors",
    )
    for opened in (
        load(tmp_path / "model.safetensors"),
        hybridvit.create_model("fastvit_mci_debug", pretrained=tmp_path / "model.safetensors", folded=True),
    ):
        assert opened.card.preprocessing == FASTVLM_INPUT
        assert opened.card.licence.startswith("apple-amlr")
    assert caplog.text.count("for research only, not commercial") == 2


def test_a_folded_file_of_another_version_is_refused_with_the_way_to_a_new_one(tmp_path: Path) -> None:
    folded = hybridvit.fold(tower())
    tensors = {
        name.replace(".to_qkv.bias", ".norm.bias"): value for name, value in folded.state_dict().items()
    }  # LayerNorm's shift apart, as before it was folded
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata=to_metadata(folded.card, tensors))
    with pytest.raises(
        CheckpointError, match=r"does not fit\. .* another version .* fold again what it was folded from"
    ):
        load(path)


@pytest.mark.parametrize(("classes", "told"), [(0, "no projection"), (5, "5 outputs")])
def test_no_projection_is_made_up_for_a_file_without_one(classes: int, told: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    source = trained_like(hybridvit.create_model("fastvit_mci_debug", num_classes=classes))
    hybridvit.save_checkpoint(source, path)
    with pytest.raises(
        CheckpointError, match=rf"has {told}, .* projection to 16, .* Pass num_classes=0 .* num_classes=N"
    ):
        hybridvit.create_model("fastvit_mci_debug", pretrained=path)
    images = torch.randn(1, 3, 64, 64)
    alone = hybridvit.create_model("fastvit_mci_debug", pretrained=path, num_classes=0).eval()
    assert torch.equal(alone.forward_features(images), source.forward_features(images))
    assert hybridvit.create_model("fastvit_mci_debug", pretrained=path, num_classes=3).num_classes == 3
    pyramid = hybridvit.create_model("fastvit_mci_debug", pretrained=path, features_only=True).eval()
    assert all(map(torch.equal, pyramid(images), source.features(images).values()))
    segmenter = hybridvit.create_model("fastvit_mci_debug", task="segment", num_classes=2, pretrained=path)
    assert torch.equal(segmenter.pyramid.backbone.stem[0].conv.kxk.conv.weight, source.stem[0].conv.kxk.conv.weight)


def sparse(path: Path, tensors: Tensors, filling: dict[str, int]) -> None:
    """safetensors with `tensors`, and with zeros of so many bytes that take no place on the disk."""
    header: dict[str, Any] = {}
    content, place = [], 0
    for name, tensor in tensors.items():
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        dtype = {torch.float32: "F32", torch.int64: "I64", torch.bfloat16: "BF16"}[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [place, place + len(data)]}
        content.append(data)
        place += len(data)
    for name, size in filling.items():
        header[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(content))
        file.truncate(8 + len(text) + place)


def resident_bytes() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's peak of memory is read on Linux")
@pytest.mark.nightly
def test_a_tower_inside_a_language_model_of_two_shards_loads_within_200_mb(tmp_path: Path) -> None:
    released = from_ours(hybridvit.fold(tower(), released=True).state_dict(), "apple")
    inside = under("model.vision_tower.vision_tower.model.", released)
    half = len(inside) // 2
    parts = [dict(list(inside.items())[:half]), dict(list(inside.items())[half:])]
    names = {}
    for number, tensors in enumerate(parts, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        filling = {f"model.layers.{number}.mlp.up_proj.weight": 512 << 20}
        sparse(tmp_path / file, tensors, filling)
        names |= dict.fromkeys([*tensors, *filling], file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    load(index)  # what the first load imports is not counted
    Path("/proc/self/clear_refs").write_bytes(b"5")  # the peak begins anew
    before = resident_bytes()
    assert load(index).card.architecture == "fastvit_mci_debug"
    assert resident_bytes() - before < 200e6
    assert read_tensors(index).left_out == tuple(f"model.layers.{number}.mlp.up_proj.weight" for number in (1, 2))


def test_only_the_tower_is_read_from_a_file_of_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hybridvit.checkpoints.files as files

    read: list[str] = []
    really: Callable[..., Any] = files.safe_open

    class Watched:
        def __init__(self, *args: object, **options: object) -> None:
            self.file = really(*args, **options)

        def __enter__(self) -> "Watched":
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            return self.opened.keys()

        def metadata(self) -> dict[str, str]:
            return self.opened.metadata()

        def get_tensor(self, name: str) -> Tensor:
            read.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr(files, "safe_open", Watched)
    upstream = under("visual.trunk.", from_ours(tower().state_dict(), "timm"))
    save_file({name: value.contiguous() for name, value in upstream.items()} | TEXT, tmp_path / "model.safetensors")
    load(tmp_path / "model.safetensors")
    assert set(read) == set(upstream)


def test_weights_of_a_vlm_are_published_for_the_largest_but_one() -> None:
    with pytest.raises(CheckpointError, match=r"apple/FastVLM-0\.5B"):
        find_weights("fastvit_mci3", "apple_fastvlm_0.5b")
