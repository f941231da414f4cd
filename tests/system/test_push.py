"""A run published on a hub of this machine, and opened from there by this library, by timm and by transformers."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import relative_error
from fresh import ENVIRONMENT, command
from hub_server import Hub, Repository, running_hub
from PIL import Image
from published_runs import finished_run
from tiny_runs import SHORT

import hybridvit
from hybridvit.publish.finished import read_run
from hybridvit.training.train import train

TIMEOUT_S = 240


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A hub, with a repository that someone filled otherwise."""
    with running_hub() as hub:
        hub.repositories["ada/foreign"] = Repository()
        hub.repositories["ada/foreign"].add("main", {"README.md": b"mine", "weights.bin": b"1"})
        yield hub


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hub's client keeps what it fetched."""
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture(scope="module")
def run_command(hub: Hub, cache: Path) -> Iterator[Run]:
    """Carries out `hybridvit WORDS` in one process that knows no other hub; keywords are variables besides."""
    known = hub.environment(cache)
    with subprocess.Popen(
        command("commands_in_turn"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env=ENVIRONMENT | known,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def carry_out(*words: object, **environment: str) -> Done:
            asked = {"words": [str(word) for word in words], "environment": known | environment}
            print(json.dumps(asked), file=process.stdin, flush=True)
            return Done(**json.loads(process.stdout.readline()))

        yield carry_out
        process.stdin.close()
        process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return finished_run(tmp_path_factory.mktemp("published") / "run")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that has to be resized and cropped."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def pushed(hub: Hub, run_command: Run, run: Path) -> str:
    """The name of a repository that the run was pushed to."""
    done = run_command("push", run, "ada/pets", "--licence", "apache-2.0")
    assert done.code == 0, done.err
    return "ada/pets"


@pytest.fixture
def untouched(hub: Hub, pushed: str) -> Iterator[None]:
    """No file was sent and no repository changed when the test is over."""
    before, sent = {name: dict(each.branches) for name, each in hub.repositories.items()}, set(hub.large)
    yield
    hub.fault, hub.refused = "", {}
    assert {name: dict(each.branches) for name, each in hub.repositories.items()} == before
    assert set(hub.large) == sent


def test_a_push_is_one_commit_whose_files_are_listed_before_and_after(
    hub: Hub, run_command: Run, run: Path, tmp_path: Path
) -> None:
    already = len(hub.seen)
    done = run_command("push", run, "ada/listed", "--licence", "mit")
    assert done.code == 0, done.err
    repository = hub.repositories["ada/listed"]
    assert not repository.private
    assert len(repository.commits) == 2  # the hub's own, and this
    written = run_command("push", run, "ada/listed", "--licence", "mit", "--dry_run", tmp_path / "folder")
    files = json.loads((tmp_path / "folder" / "hybridvit.json").read_text(encoding="utf-8"))["files"]
    for name in files:
        assert repository.files[name] == (tmp_path / "folder" / name).read_bytes(), name
        assert name in done.err
        assert name in written.out
    assert set(repository.files) == {*files, ".gitattributes"}
    assert f"Created ada/listed: {len(files)} files in one commit, {hub.address}/ada/listed/commit/" in done.out
    assert "hybridvit, timm and transformers open it." in done.out
    assert sum("/commit/" in each for each in hub.seen[already:]) == 1


def test_the_hub_gives_the_same_model_and_answers_to_commands(
    run_command: Run, run: Path, pushed: str, photo: Path, tmp_path: Path
) -> None:
    local = run_command("predict", run / "model.safetensors", photo, "--json")
    remote = run_command("predict", f"hf://{pushed}", photo, "--json")
    assert (remote.code, remote.out) == (0, local.out)
    for revision in ("", "@main"):
        told = run_command("info", f"hf://{pushed}{revision}")
        assert told.code == 0, told.err
        assert "2: cat & co, dog" in told.out
        assert "apache-2.0" in told.out
    assert run_command("info", f"hf://{pushed}/model.safetensors").code == 0
    folded = run_command("fold", f"hf://{pushed}", "--output", tmp_path / "folded.safetensors")
    assert folded.code == 0, folded.err
    own, again = hybridvit.load(run / "model.safetensors"), hybridvit.load(tmp_path / "folded.safetensors")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        assert relative_error(again(images), own(images)) <= 1e-5


def test_offline_the_cache_answers(run_command: Run, hub: Hub, pushed: str, photo: Path) -> None:
    assert run_command("predict", f"hf://{pushed}", photo).code == 0
    already = len(hub.seen)
    assert run_command("predict", f"hf://{pushed}", photo, HYBRIDVIT_OFFLINE="1").code == 0
    absent = run_command("info", "hf://ada/absent", HYBRIDVIT_OFFLINE="1")
    assert absent.code == 5
    assert "it is not in the cache and the hub cannot be reached: the network is switched off" in absent.err
    assert len(hub.seen) == already


def test_timm_and_transformers_open_it_without_this_package_and_answer_the_same(
    hub: Hub, cache: Path, run: Path, pushed: str, photo: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.npz"
    done = subprocess.run(
        command("opened_by_others", pushed, photo, "RGB", answers),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=ENVIRONMENT | hub.environment(cache),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"timm": ["cat & co", "dog"], "transformers": ["cat & co", "dog"]}
    model = hybridvit.load(run / "model.safetensors")
    own = torch.as_tensor(hybridvit.Predictor(run / "model.safetensors").prepare(photo).image)[None]
    with np.load(answers) as found:
        theirs = {name: torch.from_numpy(found[name]) for name in found.files}
    assert torch.equal(theirs["pixels"], own)
    assert torch.equal(theirs["timm_pixels"], own)
    with torch.no_grad():
        for name in ("timm", "transformers"):
            assert relative_error(theirs[name], model(own)) <= 1e-5
        pooled = model.forward_head(model.forward_features(own), pre_logits=True)
        for name in ("tower", "timm_tower"):
            assert relative_error(theirs[name], pooled) <= 1e-5


def test_a_branch_is_created_and_read_by_its_name(hub: Hub, run_command: Run, run: Path) -> None:
    assert run_command("push", run, "ada/branches").code == 0
    before = hub.repositories["ada/branches"].branches["main"]
    done = run_command("push", run, "ada/branches", "--revision", "v2", "--licence", "mit")
    assert done.code == 0, done.err
    branches = hub.repositories["ada/branches"].branches
    assert branches["main"] == before != branches["v2"]
    assert "mit" in run_command("info", "hf://ada/branches@v2").out
    assert "not stated" in run_command("info", "hf://ada/branches").out
    assert run_command("info", f"hf://ada/branches@{before}").code == 0
    absent = run_command("info", "hf://ada/branches@v3")
    assert absent.code == 5
    assert "ada/branches on the Hugging Face hub has no branch, tag or commit 'v3'" in absent.err


def test_a_second_push_replaces_the_first_and_takes_its_other_files_away(hub: Hub, run_command: Run, run: Path) -> None:
    assert run_command("push", run, "ada/twice").code == 0
    repository = hub.repositories["ada/twice"]
    manifest = json.loads(repository.files["hybridvit.json"])
    older = repository.files | {"curves/gone.svg": b"<svg/>"}
    older["hybridvit.json"] = json.dumps({**manifest, "files": [*manifest["files"], "curves/gone.svg"]}).encode()
    repository.add("main", older)
    done = run_command("push", run, "ada/twice")
    assert done.code == 0, done.err
    assert "Updated ada/twice" in done.out
    assert set(repository.files) == {*manifest["files"], ".gitattributes"}


def test_a_private_repository_opens_with_its_owners_token_alone(hub: Hub, run_command: Run, run: Path) -> None:
    assert run_command("push", run, "ada/secret", "--private").code == 0
    assert hub.repositories["ada/secret"].private
    for token in ("hf_reader", ""):  # before the owner, whose cache holds the file afterwards
        refused = run_command("info", "hf://ada/secret", HF_TOKEN=token)
        assert refused.code == 5
        assert "There is no ada/secret on the Hugging Face hub, or it is private and your token" in refused.err
    assert run_command("info", "hf://ada/secret").code == 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("words", "environment", "code", "message"),
    [
        (["ada/new"], {"HF_TOKEN": ""}, 2, "There is no token of the Hugging Face hub"),
        (["ada/new"], {"HF_TOKEN": "hf_other"}, 2, "The hub does not take your token"),
        (["ada/new"], {"HF_TOKEN": "hf_reader"}, 2, "Your token may not write to ada/new"),
        (["else/new"], {}, 2, "or give another OWNER/NAME"),
        (["ada/pets"], {"HF_TOKEN": "hf_reader"}, 2, "ada/pets is as it was"),
        (["ada/pets", "--private"], {}, 2, "is there already, and everyone can see it"),
        (["ada/foreign"], {}, 2, "no push of hybridvit wrote ('README.md', 'weights.bin'), and is left as it is"),
        (["ada/foreign", "--revision", "mine"], {}, 2, "holds files that no push of hybridvit wrote"),
        (["ada/new"], {"HF_HUB_OFFLINE": "1"}, 5, "The network is switched off, so nothing can be pushed"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_sent(
    hub: Hub, run_command: Run, run: Path, words: list[str], environment: dict[str, str], code: int, message: str
) -> None:
    done = run_command("push", run, *words, **environment)
    assert done.code == code, done
    assert message in done.err
    assert done.out == ""
    assert "ada/new" not in hub.repositories


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("part", "state"),
    [
        ("GET /api/whoami-v2", "Nothing was sent."),
        ("POST /api/validate-yaml", "The commit is made whole or not at all: ada/pets is as it was."),
        ("POST /api/models/ada/pets/commit", "The commit is made whole or not at all: ada/pets is as it was."),
    ],
)
def test_a_hub_that_is_gone_in_the_middle_leaves_the_repository_as_it_was(
    hub: Hub, run_command: Run, run: Path, pushed: str, part: str, state: str
) -> None:
    hub.fault = part
    done = run_command("push", run, pushed, "--licence", "apache-2.0")
    assert done.code == 5, done
    assert "The hub does not answer, or refused" in done.err
    assert state in done.err


@pytest.mark.nightly  # the hub's client asks again for 20 seconds
@pytest.mark.usefixtures("untouched")
def test_a_hub_that_is_gone_while_weights_are_sent_leaves_nothing(
    hub: Hub, run_command: Run, run: Path, pushed: str
) -> None:
    hub.fault = "PUT /large"
    done = run_command("push", run, pushed, "--licence", "cc-by-4.0")
    assert done.code == 5, done
    assert "The commit is made whole or not at all: ada/pets is as it was." in done.err
    created = run_command("push", run, "ada/begun", "--licence", "cc-by-4.0")
    assert "ada/begun is created, and empty." in created.err
    hub.fault = ""
    assert list(hub.repositories.pop("ada/begun").files) == [".gitattributes"]


@pytest.mark.usefixtures("untouched")
def test_someone_else_was_faster(hub: Hub, run_command: Run, run: Path, pushed: str) -> None:
    hub.refused = {"POST /api/models/ada/pets/commit": 412}
    done = run_command("push", run, pushed, "--licence", "apache-2.0")
    assert done.code == 5
    assert "ada/pets was changed by someone else meanwhile" in done.err


def test_what_training_leaves_can_be_pushed(tmp_path: Path) -> None:
    result = train(dataclasses.replace(SHORT, output=str(tmp_path / "run")), progress=False)
    run = read_run(tmp_path / "run")
    assert run.measured[0][1] == pytest.approx(result.best)
    assert run.result["machine"]["Processor"]
    done = hybridvit.push(tmp_path / "run", "ada/digits", dry_run=tmp_path / "folder")
    assert done.contents.opens_in == "timm"
    assert os.fspath(tmp_path) not in (tmp_path / "folder" / "README.md").read_text(encoding="utf-8")
