"""Files damaged at random, cut, or with shapes, names and cards that no model has: refused with one kind of error."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import hybridvit
from hybridvit.checkpoints import load, load_weights, read_tensors, save_checkpoint, save_upstream
from hybridvit.errors import CheckpointError

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(7)}


def saved(kind: str) -> bytes:
    if kind == "safetensors":
        return save(WEIGHTS, {"made_by": "test"})
    buffer = io.BytesIO()
    torch.save({"state_dict": WEIGHTS}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def rewrite(path: Path, content: bytes) -> None:
    """A new file each time: to truncate one makes some file systems wait for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "step"), [("safetensors", 1), ("zip", 5), ("legacy", 1)])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str, step: int) -> None:
    content, path = saved(kind), tmp_path / "w"
    for length in range(0, len(content), step):
        rewrite(path, content[:length])
        with pytest.raises(CheckpointError):
            read_tensors(path)


def mutated(content: bytes, rng: random.Random, header: int) -> bytes:
    """One to three random edits, half of them among the first `header` bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(header, len(data)) if rng.random() < 0.5 else len(data))
        edit = rng.choice(["flip", "byte", "zero", "insert", "delete", "cut", "repeat"])
        if edit == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif edit == "byte":
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif edit == "zero":
            data[at : at + 8] = bytes(len(data[at : at + 8]))
        elif edit == "insert":
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif edit == "delete":
            del data[at : at + rng.randint(1, 8)]
        elif edit == "cut":
            del data[at + 1 :]
        else:
            data[at:at] = data[at : at + 16]
        if not data:
            return b""
    return bytes(data)


def rezipped(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The zip with its pickle changed and all checksums right, so that the damage reaches the unpickler."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(buffer, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            target.writestr(record.filename, change(data) if record.filename.endswith("data.pkl") else data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "count"), [("safetensors", 2000), ("zip", 500), ("pickle in zip", 500), ("legacy", 500)]
)
def test_random_damage_is_refused_or_harmless(tmp_path: Path, kind: str, count: int) -> None:
    content, path, rng = saved("zip" if kind == "pickle in zip" else kind), tmp_path / "w", random.Random(f"{kind} 1")
    messages = []
    for _ in range(count):
        if kind == "pickle in zip":
            rewrite(path, rezipped(content, lambda data: mutated(data, rng, 400)))
        else:
            rewrite(path, mutated(content, rng, 400))
        try:
            read_tensors(path)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > count / 3
    assert not any("weights_only=False" in message for message in messages)


def test_random_damage_to_a_card_is_refused_or_harmless(tmp_path: Path) -> None:
    path, rng = tmp_path / "m.safetensors", random.Random("card 1")
    save_checkpoint(hybridvit.create_model("fastvit_debug", num_classes=2), path)
    content = path.read_bytes()
    for _ in range(100):
        rewrite(path, mutated(content[:900], rng, 900) + content[900:])
        try:
            load(path)
        except CheckpointError:
            continue


ODD_SHAPES = [(), (0,), (5,), (0, 3), (10**18, 0), (4, 0, 3, 3), (0, 3, 3, 3), (4, 10**18, 0, 3)]


@pytest.mark.parametrize(
    ("architecture", "naming"),
    [
        pytest.param("fastvit_debug", "apple", marks=pytest.mark.nightly),
        ("fastvit_debug", "timm"),
        pytest.param("fastervit_debug", "nvidia", marks=pytest.mark.nightly),
    ],
)
def test_shapes_that_no_model_has_are_refused_whatever_they_are(tmp_path: Path, architecture: str, naming: str) -> None:
    model, path = hybridvit.create_model(architecture), tmp_path / "w.pth"
    save_upstream(model, path, naming)  # type: ignore[arg-type]  # parametrised above
    tensors = {name: tensor.clone() for name, tensor in read_tensors(path).tensors.items()}
    classifier = "head.fc.weight" if naming == "timm" else "head.weight"
    for name in (next(iter(tensors)), classifier):
        for shape in ODD_SHAPES:
            torch.save({**tensors, name: torch.zeros(shape)}, path)
            with pytest.raises(CheckpointError):
                load(path)
            with pytest.raises(CheckpointError):
                load_weights(model, path, adapt_input=True)
            if name != classifier:  # whose shape does not matter if it is replaced
                with pytest.raises(CheckpointError):
                    hybridvit.create_model(architecture, num_classes=3, pretrained=path)


@pytest.mark.parametrize("first", ["patch_embed.0.x", "patch_embed.conv_down.0.weight", "stages.2.body.x"])
@pytest.mark.parametrize(
    "odd", ["levels.{}.downsample.norm.weight", "network.{}.proj.1.x", "levels.{}.blocks.{}.attn.qkv.weight"]
)
def test_numbers_in_names_may_be_any(tmp_path: Path, first: str, odd: str) -> None:
    for number in ("9" * 5000, "-1", "\u0663", "{0}", "1e3", ""):
        torch.save({first: torch.zeros(1), odd.replace("{}", number): torch.zeros(1)}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="fits no model of this library"):
            load(tmp_path / "w.pth")


HOSTILE_OPTIONS = [
    {"position_hidden": 10**12},
    {"widths": [10**9] * 4},
    {"num_heads": [1, 2, 10**9, 1]},
    {"stem_width": 10**15},
    {"mlp_ratio": 10**17},
    {"mixers": ["hat"] * 4},
    {"windows": "abc"},
    {"windows": [3, 3, 0, 3]},
    {"carrier_size": 10**9},
    {"propagate": 3},
]


@pytest.mark.parametrize("options", HOSTILE_OPTIONS, ids=str)
def test_a_card_that_asks_for_more_than_the_file_has_allocates_nothing(
    tmp_path: Path, options: dict[str, object]
) -> None:
    path, model = tmp_path / "m.safetensors", hybridvit.create_model("fastervit_debug", num_classes=2).eval()
    for form in (model, hybridvit.fold(model)):
        save_checkpoint(form, path)
        file = read_tensors(path)
        entry = json.loads(file.metadata["hybridvit"])
        entry["card"]["options"] |= options
        save_file(file.tensors, path, {"hybridvit": json.dumps(entry)})
        with pytest.raises(CheckpointError):
            load(path)


def test_a_message_about_a_text_file_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("hi\nthere\tI am text\n")
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert "is text ('hi there I am text…'), not weights" in str(caught.value)
    assert "\n" not in str(caught.value)
