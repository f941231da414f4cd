"""torch.compile: a run that resumes to the bit, with the keys and about the losses of the one that is not compiled."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from tiny_runs import TINY, Interruption, assert_same_bits, run

from hybridvit.recipe.groups import ScheduleConfig
from hybridvit.tasks.classify.config import MesaConfig

COMPILED = dataclasses.replace(
    TINY,
    model_options={"drop_path_rate": 0.2, "overparameterised": ("mixer",)},  # fewer branches, less to compile
    compile=True,
    mesa=MesaConfig(weight=0.5, start=0.0),
    schedule=ScheduleConfig(epochs=1, warmup_epochs=0),
    save_every=1 / 3,
)


@torch._inductor.config.patch(
    {
        "fallback_random": True,  # else drop-path draws other random numbers than without compiling
        "aot_inductor.debug_compile": True,  # -O0: two thirds of the time would be the C++ compiler's
    }
)
def test_a_compiled_run_resumes_to_the_bit_and_is_about_the_one_that_is_not(tmp_path: Path) -> None:
    straight = run(dataclasses.replace(COMPILED, output=str(tmp_path / "straight")))
    stopped = dataclasses.replace(COMPILED, output=str(tmp_path / "stopped"))

    def disturb(what: str, count: int) -> None:
        if (what, count) == ("loss", 4):
            raise Interruption

    with pytest.raises(Interruption):
        run(stopped, disturb=disturb)
    assert_same_bits(run(stopped, resume=True), straight)

    eager = run(dataclasses.replace(COMPILED, compile=False, output=str(tmp_path / "eager")))
    assert straight["model"].keys() == eager["model"].keys()
    (row,), (expected,) = straight["position"]["history"], eager["position"]["history"]
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
    assert row["train_loss"] != expected["train_loss"]  # something was compiled
    torch._dynamo.reset()
