"""Files as other libraries write them: each gives the model that was put into it, and says what was done to it."""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import trained_like
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import hybridvit
from hybridvit.checkpoints import load, load_weights, read_tensors
from hybridvit.checkpoints.keymaps import from_ours
from hybridvit.cli.main import main
from hybridvit.errors import CheckpointError
from hybridvit.loading import open_runner
from hybridvit.measure.subject import find_subject
from hybridvit.starting import starting_model
from hybridvit.tasks.classify.config import ClassifyData, ClassifyRecipe, DistillConfig
from hybridvit.tasks.classify.teacher import find_teacher

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
Tensors = dict[str, Any]


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def lightning(tensors: Tensors) -> Tensors:
    """What `Trainer.save_checkpoint` writes of a module with a model, a criterion and a score."""
    state = OrderedDict(under("model.", tensors)) | {"criterion.weight": torch.ones(5)}
    score = {"monitor": "val_acc", "best_model_score": torch.tensor(0.7), "dirpath": "/runs"}
    return {
        "epoch": 3,
        "global_step": 400,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": score},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "root": PurePosixPath("/data")},
    }


def mmengine(tensors: Tensors) -> Tensors:
    """A run's file: the EMA hook has put the averaged weights into `state_dict`, and the raw ones into the other."""
    heads = {f"{place}.{leaf}": f"head.fc.{leaf}" for place in ("head", "head.fc") for leaf in ("weight", "bias")}
    state = {heads.get(name, f"backbone.{name}"): tensor for name, tensor in tensors.items()}
    raw = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    hub = {"log_scalars": {"train/loss": np.float64(0.3)}, "runtime_info": {"history": np.arange(3.0)}}
    meta = {"epoch": 3, "classes": ["a"]}
    return {"meta": meta, "state_dict": state, "ema_state_dict": {"steps": torch.tensor(4)} | raw, "message_hub": hub}


def averaged(tensors: Tensors) -> Tensors:
    """Torchvision's reference scripts: the raw model, and `AveragedModel.state_dict()`."""
    raw = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    return {"model": raw, "model_ema": {"n_averaged": torch.tensor(3)} | under("module.", tensors)}


def counted_by_thop(tensors: Tensors) -> Tensors:
    ops = {
        f"{place}total_{what}": torch.zeros(1, dtype=torch.float64)
        for place in ("", "stem.")
        for what in ("ops", "params")
    }
    return tensors | ops


FILES: dict[str, Callable[[Tensors], Any]] = {
    "lightning.ckpt": lightning,
    "transformers.bin": lambda tensors: under("timm_model.", tensors),
    "mmengine.pth": mmengine,
    "mmpretrain.pth": lambda tensors: {"state_dict": under("backbone.timm_model.", tensors)},
    "averaged.pth": averaged,
    "average_alone.pth": lambda tensors: {"n_averaged": torch.tensor(3)} | under("module.", tensors),
    "ema_pytorch.pt": lambda tensors: (
        under("online_model.", {name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
        | under("ema_model.", tensors)
        | {"initted": torch.tensor(True), "step": torch.tensor(4)}
    ),
    "compiled_inside.pth": lambda tensors: {
        name.replace("stages.0.", "stages.0._orig_mod."): tensor for name, tensor in tensors.items()
    },
    "sharded_run.pth": lambda tensors: under("model._fsdp_wrapped_module.", tensors),
    "counterless.pth": lambda tensors: {name: value for name, value in tensors.items() if "batches" not in name},
    "thop.pth": counted_by_thop,
    "scores.pth": lambda tensors: {"state_dict": tensors, "best": np.float64(0.7), "epoch": np.int64(3)},
    "scores_inside.pth": lambda tensors: tensors | {"epoch": 3, "best": np.float32(0.7)},
    "own_entry.pth": lambda tensors: {"network": tensors, "optimizer": {"state": {}}, "epoch": 3},
}


@pytest.fixture(scope="module", params=["fastvit_debug", "fastervit_debug"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(hybridvit.create_model(request.param, num_classes=5))


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IMAGES)


CASES = [(name, "ours") for name in FILES] + [(name, "upstream") for name in ("lightning.ckpt", "mmengine.pth")]


@pytest.mark.parametrize(("name", "naming"), CASES)
def test_weights_as_others_write_them_give_equal_answers(
    tmp_path: Path, model: nn.Module, name: str, naming: str
) -> None:
    tensors = dict(model.state_dict())
    if naming == "upstream":
        tensors = from_ours(tensors, "timm" if "fastvit" in model.card.architecture else "nvidia")
    torch.save(FILES[name](tensors), tmp_path / name)
    loaded = load(tmp_path / name)
    assert loaded.card.architecture == model.card.architecture
    assert torch.equal(answers(loaded), answers(model))
    other = hybridvit.create_model(model.card.architecture, num_classes=5).eval()
    report = load_weights(other, tmp_path / name)
    assert report.num_tensors == len(model.state_dict())
    assert torch.equal(answers(other), answers(model))


@pytest.mark.parametrize("lost", [False, True])
def test_a_dict_cast_to_half_with_its_counters_gives_the_answers_of_the_rounded_weights(
    tmp_path: Path, model: nn.Module, lost: bool
) -> None:
    expected = hybridvit.create_model(model.card.architecture, num_classes=5).eval()
    rounded = {
        name: tensor.half().float() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    expected.load_state_dict(rounded)
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    if lost:  # a counter from 65,520 on is infinite in half precision
        half = {name: torch.full_like(value, torch.inf) if "batches" in name else value for name, value in half.items()}
    save_file(half, tmp_path / "half.safetensors")
    loaded = load(tmp_path / "half.safetensors")
    assert torch.equal(answers(loaded), answers(expected))
    assert all(value.dtype == torch.int64 for name, value in loaded.state_dict().items() if "batches" in name)


def shards(folder: Path, tensors: Tensors, ending: str = "safetensors") -> Path:
    """Three files and their index, as transformers writes them. The index."""
    names, files = list(tensors), [f"model-{number:05}-of-00003.{ending}" for number in (1, 2, 3)]
    for number, file in enumerate(files):
        part = {name: tensors[name].contiguous() for name in names[number::3]}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(part, folder / file)
    table = {name: files[place % 3] for place, name in enumerate(names)}
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_load_from_their_index_and_from_their_folder(tmp_path: Path, model: nn.Module, ending: str) -> None:
    index = shards(tmp_path, under("timm_model.", model.state_dict()), ending)
    assert torch.equal(answers(load(index)), answers(model))
    assert torch.equal(answers(load(tmp_path)), answers(model))
    index.unlink()
    assert torch.equal(answers(load(tmp_path)), answers(model))


def test_what_is_wrong_with_shards_is_named(tmp_path: Path) -> None:
    index = shards(tmp_path, {f"stem.{number}": torch.zeros(1) for number in range(6)})
    with pytest.raises(CheckpointError, match=r"is file 2 of 3 that hold one model together. Pass their folder"):
        load(tmp_path / "model-00002-of-00003.safetensors")
    table = json.loads(index.read_text())["weight_map"]
    for change, message in (
        (
            {"stem.9": "model-00001-of-00003.safetensors"},
            r"lists 1 tensors that are in none of its files \('stem\.9'\)",
        ),
        ({"stem.0": "../m.safetensors"}, r"names '\.\./m\.safetensors', but shards are files beside"),
        ({"stem.0": 3}, "names 3, but shards are files beside"),
        ({"stem.0": "absent.safetensors"}, r"1 of 4 files of the model are missing \(absent\.safetensors\)"),
    ):
        index.write_text(json.dumps({"weight_map": table | change}))
        with pytest.raises(CheckpointError, match=message):
            read_tensors(tmp_path)
    for text in ("", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=r"is no index of weights, or damaged|names no file"):
            read_tensors(index)
    index.unlink()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 files .* missing \(model-00002-of-00003\.safetensors\)"):
        read_tensors(tmp_path)


def test_a_folder_of_a_distributed_checkpoint_is_named_with_the_way_out(tmp_path: Path) -> None:
    for name in (".metadata", "__0_0.distcp"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"is a distributed checkpoint.*format_utils dcp_to_torch"):
        read_tensors(tmp_path)


def test_what_was_taken_off_and_left_out_is_said_once(
    tmp_path: Path, model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(lightning(dict(model.state_dict())), tmp_path / "m.ckpt")
    with caplog.at_level(logging.WARNING):
        hybridvit.create_model(model.card.architecture, pretrained=tmp_path / "m.ckpt", num_classes=5)
    assert [record.getMessage().removeprefix(str(tmp_path)) for record in caplog.records] == [
        "/m.ckpt: its names stand under 'model.', which was taken off",
        "/m.ckpt: left out, as no part of the model: 'criterion.weight'",
    ]
    report = load_weights(model, tmp_path / "m.ckpt")
    assert (report.prefix, report.left_out) == ("model.", ("criterion.weight",))


def test_averaged_weights_win_over_raw_ones_and_a_plain_file_says_nothing(
    tmp_path: Path, model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = dict(model.state_dict())
    for name, chosen in (("mmengine.pth", "state_dict"), ("averaged.pth", "model_ema")):
        torch.save(FILES[name](tensors), tmp_path / name)
        with caplog.at_level(logging.WARNING):
            assert read_tensors(tmp_path / name).weight_set == chosen
        assert f"using the averaged (EMA) weights in '{chosen}'" in caplog.text
    caplog.clear()
    torch.save({"state_dict": under("module.", tensors)}, tmp_path / "plain.pth")
    file = read_tensors(tmp_path / "plain.pth")
    assert (file.prefix, file.left_out, caplog.records) == ("module.", (), [])


def test_what_a_model_has_and_the_file_lacks_is_still_refused(tmp_path: Path, model: nn.Module) -> None:
    tensors = under("model.", model.state_dict())
    lost = next(name for name in tensors if name.endswith("running_mean"))
    torch.save({name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=f"(?s)does not fit.*- {lost.removeprefix('model.')}"):
        load(tmp_path / "m.pth")


def test_the_real_averaged_model_loads(tmp_path: Path, model: nn.Module) -> None:
    torch.save(AveragedModel(model).state_dict(), tmp_path / "m.pth")
    assert torch.equal(answers(load(tmp_path / "m.pth")), answers(model))


def test_every_command_takes_lightnings_file(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "epoch=3.ckpt"
    torch.save(lightning(dict(model.state_dict())), path)
    assert find_subject(str(path)).kind == "weights"  # bench
    logits = open_runner(path)(IMAGES.numpy())["logits"]  # evaluate and predict
    np.testing.assert_allclose(logits, answers(model).numpy(), rtol=1e-3, atol=1e-4)
    assert main(["info", str(path)]) == 0
    assert main(["fold", str(path)]) == 0
    assert load(tmp_path / "epoch=3-folded.safetensors").card.form == "folded"
    recipe = ClassifyRecipe(
        model=model.card.architecture,
        data=ClassifyData(source="generated", image_size=64, total_batch=8),
        pretrained=str(path),
    )
    started = starting_model(recipe, tuple("abcde"))  # train
    assert torch.equal(answers(started.eval()), answers(model))


def test_a_teacher_of_timm_loads_from_lightnings_file(tmp_path: Path) -> None:
    teacher = trained_like(timm.create_model("test_resnet", num_classes=5))
    torch.save(lightning(teacher.state_dict()), tmp_path / "m.ckpt")
    config = DistillConfig(teacher="test_resnet", teacher_weights=str(tmp_path / "m.ckpt"))
    assert torch.equal(answers(find_teacher(config, 5).module.eval()), answers(teacher))


@pytest.mark.nightly
def test_what_transformers_saves_of_timms_models_loads(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(architecture="fastvit_t8", num_labels=5)
    theirs = transformers.TimmWrapperForImageClassification(config)
    trained_like(theirs)
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="5MB")
    with torch.no_grad():
        expected = theirs(pixel_values=IMAGES).logits
    for path in (tmp_path / "whole" / "model.safetensors", tmp_path / "shards"):
        torch.testing.assert_close(answers(load(path)), expected, rtol=1e-5, atol=1e-5)
