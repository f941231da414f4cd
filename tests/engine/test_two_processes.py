"""What two processes do together. They are started once for all of these tests, as that takes longest."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import test_shards_training
import torch
from elastic import begin_alone, end_alone
from fresh import ENVIRONMENT, PROGRAMS
from test_engine_fsdp import SHARED_OUT
from tiny_runs import TinyTask

from hybridvit.training.train import train

CHECKS = (
    "test_resume.count_once",
    "test_resume.refuse_together",
    "test_seeing.one_speaks",
    "test_shards_training.see_every_sample_once",
    "elastic.go_on_with_two",
    "test_never_lost_resume.resume_together",
    "test_engine_fsdp.skip_together",
    "test_detectors_train.learn_together",
)


@dataclass(frozen=True)
class Session:
    """Two processes that have called CHECKS one after the other, and how they ended."""

    folder: Path
    end: str

    def passed(self, check: str) -> Path:
        """The folder of a check, which must have passed in both processes."""
        place = self.folder / check
        if not all((place / f"passed-{rank}").exists() for rank in (0, 1)):
            said = [path.read_text(encoding="utf-8")[-3000:] for path in sorted(place.glob("said-*.txt"))]
            pytest.fail("\n".join(said or [f"not reached: an earlier check has ended the processes\n{self.end}"]))
        return place


def together(folder: Path, *checks: str, timeout: float = 500) -> Session:
    """Call `checks` in two processes."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(str(PROGRAMS / "together.py"), str(folder), *checks),
    ]
    modules = {"PYTHONPATH": f"{Path(__file__).parent}:{ENVIRONMENT['PYTHONPATH']}", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT | modules, check=False
    )
    return Session(folder, done.stderr[-3000:])


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("two")
    for name in ("see_every_sample_once", "go_on_with_two"):
        (folder / name).mkdir()
    test_shards_training.packed(folder / "see_every_sample_once")
    begin_alone(folder / "go_on_with_two" / "elastic")
    return together(folder, *CHECKS)


@pytest.mark.parametrize("check", ["count_once", "refuse_together"])
def test_two_processes_refuse_together_and_count_once(session: Session, check: str) -> None:
    session.passed(check)


def test_two_processes_stop_together_and_resume_alike(session: Session) -> None:
    session.passed("resume_together")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_processes_resume_alike_in_every_combination(tmp_path: Path) -> None:
    together(tmp_path, "test_never_lost_resume.resume_every_combination", timeout=3500).passed(
        "resume_every_combination"
    )


def test_only_one_speaks_and_the_page_has_what_the_other_warned_of(session: Session) -> None:
    place = session.passed("one_speaks")
    said = "".join((place / f"said-{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1))
    assert said.count("epoch 1  step 3/9") == 1
    best = r"top1(?: of epoch \d, the best validation)?: raw [\d.]+ %   averaged [\d.]+ %   folded [\d.]+ % "
    assert re.search(best + r"\(same answer on all 10 images\)", said)
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    assert "same answer on all 10 images" in page
    assert "left out: of the second process" in page


def test_two_processes_see_every_sample_of_an_epoch_once_between_them(session: Session) -> None:
    place = session.passed("see_every_sample_once")
    seen = [json.loads((place / f"seen-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    once = Counter((epoch, sample) for epoch in (0, 1) for sample in range(24))
    assert Counter(map(tuple, seen[0] + seen[1])) == once
    assert len(seen[0]) == len(seen[1])


def test_a_run_goes_from_one_process_to_two_and_back(session: Session) -> None:
    end_alone(session.passed("go_on_with_two"))


def test_a_gradient_out_of_range_in_one_process_makes_both_skip_the_step(session: Session) -> None:
    session.passed("skip_together")


@pytest.mark.nightly
def test_processes_that_share_the_weights_out_skip_a_step_together_too(tmp_path: Path) -> None:
    together(tmp_path, "test_engine_fsdp.skip_together_sharing_weights").passed("skip_together_sharing_weights")


@pytest.mark.nightly
def test_weights_shared_out_train_as_with_ddp_and_one_process_goes_on_with_their_snapshot(tmp_path: Path) -> None:
    place = together(tmp_path, "test_engine_fsdp.share_out").passed("share_out")
    (place / "stopped" / "checkpoints" / "step-000000006" / "manifest.json").unlink()
    alone = replace(SHARED_OUT, devices="auto", strategy="ddp", output=str(place / "stopped"))
    result = train(alone, resume=True, allow_changes=True, progress=False, task=TinyTask())
    assert [row["step"] for row in result.history] == [3, 6]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in result.history)


def test_two_processes_learn_with_an_image_without_objects_on_one_of_them(session: Session) -> None:
    session.passed("learn_together")
