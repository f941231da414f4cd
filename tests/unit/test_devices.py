"""`devices` names GPUs by their numbers, or says how many."""

import pytest
import torch

from hybridvit.errors import UsageError
from hybridvit.recipe.file import load_recipe
from hybridvit.recipe.recipe import Recipe
from hybridvit.training.engine import devices
from hybridvit.training.engine.launched import Launched, check_launched


def recipe_of(words: str, **changes: object) -> Recipe:
    return load_recipe("digits", ["--devices", words, *(f"--{key}={value}" for key, value in changes.items())])


@pytest.mark.parametrize(
    ("words", "value", "numbers"),
    [("auto", "auto", ()), ("2", 2, ()), ("0,1", "0,1", (0, 1)), ("1,", "1,", (1,)), ("3,0", "3,0", (3, 0))],
)
def test_devices_are_a_count_or_numbers(words: str, value: object, numbers: tuple[int, ...]) -> None:
    recipe = recipe_of(words)
    assert recipe.devices == value
    assert recipe.gpu_numbers == numbers


@pytest.mark.parametrize("words", ["two", "0,0", "0,x", "0,-1", ","])
def test_what_is_neither_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match=r"must be a whole number, 'auto', or the numbers of GPUs, each once"):
        recipe_of(words)


def test_the_gpus_that_are_named_are_those_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(devices, "Fabric", lambda **options: asked.update(options))
    devices.build_fabric(recipe_of("1,3", accelerator="cuda"))
    assert asked["devices"] == [1, 3]
    devices.build_fabric(recipe_of("2", accelerator="cuda"))
    assert asked["devices"] == 2
    with pytest.raises(UsageError, match=r"'0,4', the numbers of GPUs, but this run has GPUs 0 to 3"):
        devices.build_fabric(recipe_of("0,4", accelerator="cuda"))
    with pytest.raises(UsageError, match=r"is for no GPU \(accelerator cpu\).* --devices 1"):
        devices.build_fabric(recipe_of("0,1", accelerator="cpu"))


def test_a_launcher_that_shares_the_gpus_out_is_told_which() -> None:
    with pytest.raises(UsageError, match="set CUDA_VISIBLE_DEVICES=0,1 for torchrun"):
        check_launched(recipe_of("0,1"), Launched(by="torchrun", devices=2, num_nodes=1))
