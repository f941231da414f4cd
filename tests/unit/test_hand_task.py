"""The task of hands: what its models start from, what they need besides weights, and what can be said of pictures."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from freihand_sets import write_freihand
from PIL import Image, ImageOps

import hybridvit
from hybridvit import api
from hybridvit.batch import Batch
from hybridvit.build import head_config
from hybridvit.card import Preprocessing
from hybridvit.errors import CheckpointError, DatasetError, MissingPart, UsageError
from hybridvit.predictor import Predictor
from hybridvit.recipe.file import load_recipe
from hybridvit.task import Moment, TaskOptions, find_task
from hybridvit.tasks.hand.asking import HandAsking
from hybridvit.tasks.hand.baseline import mean_hand, mean_points
from hybridvit.tasks.hand.config import HandLossConfig
from hybridvit.tasks.hand.freihand.lists import read_lists
from hybridvit.tasks.hand.mano import hand_found
from hybridvit.tasks.hand.mano.assets import write_assets
from hybridvit.tasks.hand.mano.generated_hand import generated_hand
from hybridvit.tasks.hand.mano.layer import HandLayer
from hybridvit.tasks.hand.mano.pose import from_mano
from hybridvit.tasks.hand.model import PALM, HandAnswer
from hybridvit.tasks.hand.objective import HandObjective, seen
from hybridvit.tasks.hand.predictions import HandPredictions

NOW = Moment(step=0, total_steps=1, averaged=None)


def made(**options: Any) -> Any:
    torch.manual_seed(0)
    head_options = {"assets": "generated", **options}
    return hybridvit.create_model("fastvit_debug", task="hand", head_options=head_options, image_size=32).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = made()
    with torch.no_grad():
        for layer in (model.head.camera, model.head.pose, model.head.shape):
            layer.weight.add_(2 * torch.randn(layer.weight.shape))
            layer.bias.add_(0.1 * torch.randn(layer.bias.shape))
    path = tmp_path_factory.mktemp("hand") / "model.safetensors"
    hybridvit.save_checkpoint(model, path)
    return path


def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((70, 90), Image.Resampling.BICUBIC)


def test_the_first_answer_is_the_mean_hand_with_its_palm_to_the_camera() -> None:
    model, assets = made(), generated_hand()
    with torch.no_grad():
        answer = model(torch.randn(2, 3, 32, 32))
    pose = torch.from_numpy(np.concatenate([np.zeros(3), np.zeros(45)])).float()[None]
    rotations = from_mano(pose, assets)
    rotations[:, 0] = torch.tensor(PALM)
    hand = HandLayer(assets)(rotations, torch.zeros(1, 10))
    expected = hand.vertices - hand.keypoints[:, :1]
    torch.testing.assert_close(answer.vertices, expected.expand(2, -1, -1), atol=2e-3, rtol=0)
    torch.testing.assert_close(answer.camera, torch.tensor([[6.0, 0.0, 0.0]]).expand(2, 3), atol=0.1, rtol=0)
    assert (answer.keypoints[:, 0] == 0).all(), "all is measured from the wrist"


def test_the_backbone_may_start_from_a_classifier(tmp_path: Path) -> None:
    classifier: Any = hybridvit.create_model("fastvit_debug", num_classes=5).eval()
    path = tmp_path / "classifier.safetensors"
    hybridvit.save_checkpoint(classifier, path)
    options = {"task": "hand", "head_options": {"assets": "generated"}}
    model: Any = hybridvit.create_model("fastvit_debug", pretrained=path, **options)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        pooled = model.eval().pyramid(images)[-1].mean((2, 3))
        expected = classifier.forward_head(classifier.forward_features(images), pre_logits=True)
    assert torch.equal(pooled, expected)


@pytest.mark.nightly  # seconds: timm
def test_the_backbone_may_be_one_of_timm_s() -> None:
    model = hybridvit.create_model("resnet10t", task="hand", head_options={"assets": "generated"}).eval()
    assert model(torch.randn(1, 3, 32, 32)).vertices.shape == (1, 778, 3)


def test_half_precision_of_the_backbone_does_not_reach_the_hand() -> None:
    model = made()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answer = model(torch.randn(1, 3, 32, 32))
    assert {each.dtype for each in answer} == {torch.float32}
    turned = answer.rotations @ answer.rotations.mT
    torch.testing.assert_close(turned, torch.eye(3).expand_as(turned), atol=1e-5, rtol=0)


def test_a_checkpoint_holds_no_array_of_the_hand(checkpoint: Path) -> None:
    assert checkpoint.stat().st_size < generated_hand().posedirs.size  # bytes; the array has four for each number
    model: Any = hybridvit.load(checkpoint)
    assert model.card.head_options == {"assets": "generated", "sha256": generated_hand().sha256}
    assert not [name for name in model.state_dict() if ".layer." in name]


def test_a_model_of_mano_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDVIT_MANO", str(tmp_path / "hand-right.safetensors"))
    with pytest.raises(MissingPart, match=r"is not there, so there is no hand to move.*mano\.is\.tue\.mpg\.de"):
        made(assets="MANO")
    write_assets(dataclasses.replace(generated_hand(), kind="MANO"), tmp_path / "hand-right.safetensors")
    model = made(assets="MANO")
    assert model.card.head_options["assets"] == "MANO"
    path = tmp_path / "model.safetensors"
    hybridvit.save_checkpoint(model, path)
    hybridvit.load(path)
    monkeypatch.setattr(hand_found, "_SEEN", {})  # as another process
    other = dataclasses.replace(generated_hand(), kind="MANO", v_template=1.01 * generated_hand().v_template)
    write_assets(other, tmp_path / "hand-right.safetensors")
    with pytest.raises(CheckpointError, match=r"moves a hand with SHA-256 .* means nothing to its mesh"):
        hybridvit.load(path)


def test_losses_are_means_in_their_units() -> None:
    generator = torch.Generator().manual_seed(0)
    answer = HandAnswer(*(torch.randn(shape, generator=generator) for shape in
                          ((2, 778, 3), (2, 21, 3), (2, 3), (2, 16, 3, 3), (2, 10))))  # fmt: skip
    truth = {"vertices": torch.randn(2, 778, 3), "keypoints": torch.randn(2, 21, 3), "points": torch.randn(2, 21, 2)}
    batch = Batch(torch.zeros(2, 3, 32, 32), truth, torch.arange(2))

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> HandAnswer:
            return answer

    truth["rotations"] = torch.randn(2, 16, 3, 3)
    l1 = HandObjective(HandLossConfig(root=9, vertices=2.0, rotations=0.5))
    total = l1.loss(Fixed(), batch, NOW)
    own, true = answer.keypoints[:, 9:10], truth["keypoints"][:, 9:10]
    apart = (answer.vertices - own) - (truth["vertices"] - true)
    assert l1.terms["loss_vertices"] == pytest.approx(20 * apart.abs().mean().item(), rel=1e-5)
    turned = (answer.rotations - truth["rotations"]).square().mean().item()
    assert l1.terms["loss_rotations"] == pytest.approx(0.5 * turned, rel=1e-5)
    assert total.item() == pytest.approx(sum(each.item() for each in l1.terms.values()), rel=1e-6)
    metro = HandObjective(HandLossConfig(kind="metro", unit_m=1.0))
    metro.loss(Fixed(), batch, NOW)
    places = seen(answer.keypoints, answer.camera) - truth["points"]
    assert metro.terms["loss_points"] == pytest.approx(places.square().mean().item(), rel=1e-5)
    wrists = (answer.keypoints - answer.keypoints[:, :1]) - (truth["keypoints"] - truth["keypoints"][:, :1])
    assert metro.terms["loss_keypoints"] == pytest.approx(wrists.square().mean().item(), rel=1e-5)
    truth["rotations"] = torch.randn(2, 16, 3, 3)
    turned = HandObjective(HandLossConfig(rotations=3.0))
    total = turned.loss(Fixed(), batch, NOW)
    off = (answer.rotations - truth["rotations"]).square().mean().item()
    assert turned.terms["loss_rotations"] == pytest.approx(3 * off, rel=1e-5)
    assert total.item() == pytest.approx(sum(each.item() for each in turned.terms.values()), rel=1e-6)


def test_a_left_hand_is_the_mirror_image_of_a_right_one(checkpoint: Path) -> None:
    mirrored = ImageOps.mirror(picture())
    (right,) = Predictor(checkpoint, device="cpu")([picture()])
    (left,) = Predictor(checkpoint, device="cpu", said=TaskOptions({"side": "left"}))([mirrored])
    assert left.side == "left"
    assert np.array_equal(left.vertices, right.vertices * (-1, 1, 1))
    across, down = right.pixels(right.keypoints).T
    assert np.allclose(left.pixels(left.keypoints), np.stack([70 - across, down], 1), rtol=0, atol=1e-9)


def test_a_box_is_shown_with_its_surroundings_and_a_lens_tells_where_the_hand_is(
    checkpoint: Path, tmp_path: Path
) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"hand.png": [10, 20, 40, 30]}))
    picture().save(tmp_path / "hand.png")
    said = TaskOptions({"boxes": str(boxes), "focal": 100.0})
    (found,) = Predictor(checkpoint, device="cpu", said=said)([tmp_path / "hand.png"])
    assert found.frame.crop == pytest.approx((4, 9, 52, 52))  # 1.3 times the longer side
    (same,) = Predictor(checkpoint, device="cpu", said=TaskOptions({"boxes": "0,0,40,40"}))(
        [picture().crop((10, 15, 50, 55))]
    )
    assert same.frame.crop == pytest.approx((-6, -6, 52, 52))
    x, y, depth = found.position
    assert depth == pytest.approx(2 * 100 / (found.camera[0] * 52))
    wrist = found.pixels(np.zeros((1, 3)))[0]
    assert (100 * x / depth + 35, 100 * y / depth + 45) == pytest.approx(tuple(wrist))
    with pytest.raises(UsageError, match=r"has no box of other\.png"):
        find_task("hand").asked(said).shown(picture(), hybridvit.load(checkpoint).card.preprocessing, "other.png")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"side": "up"}, "--side is 'up', but a hand is one of right, left"),
        ({"focal": 0.0}, "--focal is 0, but a focal length is a number of pixels above 0"),
        ({"boxes": "1,2,3"}, "--boxes is 1,2,3, but a box is x,y,width,height"),
        ({"boxes": "1,2,3,-4"}, "width and height of a box are above 0"),
        ({"boxes": "none.json"}, "none.json, which cannot be read"),
    ],
)
def test_what_is_said_of_pictures_has_to_make_sense(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        HandAsking(**values)


def test_other_tasks_have_no_use_for_it() -> None:
    with pytest.raises(UsageError, match="--side is set, but models of the task 'classify' have no use for it"):
        find_task("classify").asked(TaskOptions({"side": "left"}))


def test_a_box_outside_the_picture_is_refused() -> None:
    task = find_task("hand").asked(TaskOptions({"boxes": "80,0,10,10"}))
    with pytest.raises(UsageError, match=r"lies outside of the picture, which has 70x90 pixels"):
        task.shown(picture(), made().card.preprocessing, "")


def test_the_mean_hand_stands_beside_every_score(checkpoint: Path, tmp_path: Path) -> None:
    write_freihand(tmp_path / "hands", hands=6, versions=1)
    write_freihand(tmp_path / "hands", hands=3, versions=1, split="evaluation")
    assets, model = generated_hand(), hybridvit.load(checkpoint)
    assert mean_hand(None, assets) == {}
    lists = read_lists(tmp_path / "hands", "training")
    facts = mean_hand(lists.arrays["mano"], assets)
    poses = torch.from_numpy(np.array(lists.arrays["mano"][:], np.float64)).reshape(6, 61)[:, :48]
    rotations = from_mano(poses, assets)[:, 1:]
    found = torch.tensor(facts["mean_rotations"]).double()
    nearest = torch.linalg.svd(rotations.mean(0))
    torch.testing.assert_close(found, nearest.U @ nearest.Vh, atol=1e-5, rtol=0)  # of rotations near each other
    card = dataclasses.replace(model.card, class_facts=facts)
    assert mean_points(model.card, assets) is None
    constant = mean_points(card, assets)
    assert constant is not None
    assert constant.vertices.shape == (1, 778, 3)
    model.card = card
    scores = api.evaluate(model, tmp_path / "hands", device="cpu", write_pred=tmp_path / "pred.json").scores
    assert 0 < scores.details["mean_hand"]["keypoints"] < 0.05
    assert scores.parts[0].head[-1] == "Mean hand, aligned"
    keypoints, vertices = json.loads((tmp_path / "pred.json").read_text())
    assert (np.shape(keypoints), np.shape(vertices)) == ((3, 21, 3), (3, 778, 3))
    assert (np.array(vertices)[..., 2] > 0.2).all(), "they are before the camera, in metres"


def test_rotations_in_targets_move_the_hand_as_the_labels_have_it(tmp_path: Path) -> None:
    write_freihand(tmp_path, hands=3)
    splits = find_task("hand").open(
        _recipe(tmp_path, **{"data.source": "freihand", "data.root": str(tmp_path), "hand.assets": "generated",
                             "data.val_share": 0.4, "loss.rotations": 1.0, "augment.rotation_share": 1.0})
    )  # fmt: skip
    target = splits.train.draw(0, 1).target
    shape = torch.from_numpy(np.array(splits.train.parameters[1], np.float32).ravel()[48:58])  # type: ignore[attr-defined]
    hand = HandLayer(generated_hand())(target["rotations"][None], shape[None])
    apart = hand.keypoints - hand.keypoints[:, :1] - (target["keypoints"] - target["keypoints"][:1])
    assert apart.abs().max() < 1e-5
    assert "rotations" not in splits.validation.draw(0, 0).target
    (tmp_path / "training_mano.json").unlink()
    with pytest.raises(DatasetError, match=r"'loss.rotations' is set, but .* has no parameters of its hands"):
        find_task("hand").open(
            _recipe(tmp_path, **{"data.source": "freihand", "data.root": str(tmp_path), "hand.assets": "generated",
                                 "data.val_share": 0.4, "loss.rotations": 1.0})
        )  # fmt: skip


def test_predictions_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends neither in \.zip nor in \.json"):
        HandPredictions(find_task("hand").open(_recipe(tmp_path)).train, tmp_path / "pred.txt")
    with pytest.raises(UsageError, match=r"there is none for the task 'classify'\. Leave --write_pred out"):
        find_task("classify").predictions(None, made().card, tmp_path / "p.zip")  # type: ignore[arg-type]


def test_predictions_want_a_mesh_and_the_camera(tmp_path: Path) -> None:
    samples = find_task("hand").open(_recipe(tmp_path)).validation
    written = HandPredictions(samples, tmp_path / "pred.json")
    batch = find_task("hand").collate([samples.draw(0, 0)])
    with pytest.raises(
        UsageError, match=r"The file gives camera and shape, but hands are written .* and camera\. Export"
    ):
        written.update({"camera": np.zeros((1, 3)), "shape": np.zeros((1, 10))}, batch)


def _recipe(folder: Path, **keys: Any) -> Any:
    path = folder / "recipe.yaml"
    path.write_text("model: fastvit_debug\ntask: hand\n")
    return load_recipe(str(path), {"data.source": "generated", "data.image_size": 32, "data.total_batch": 4, **keys})


def test_recipes_name_the_hand_once(tmp_path: Path) -> None:
    assert _recipe(tmp_path).creation["head_options"] == {"assets": "generated"}
    named = _recipe(tmp_path, **{"hand.assets": "somewhere.safetensors"})
    assert named.creation["head_options"] == {}
    settings, changed = named.trial_settings()
    assert settings["hand"].assets == "generated"
    assert "left out: the hand's own mesh; a generated one takes its place" in changed
    for key, value, text in (
        ("loss.unit_m", 0, "loss.unit_m"),
        ("loss.root", 21, "loss.root"),
        ("loss.points", 0, "without them either the hand or its place in the picture is not learnt"),
    ):
        with pytest.raises(UsageError, match=text):
            _recipe(tmp_path, **{key: value})
    with pytest.raises(UsageError, match=r"sets assets, which follows from hand\.assets"):
        dataclasses.replace(named, head_options={"assets": "generated"})


def test_a_wrong_digest_is_no_digest() -> None:
    with pytest.raises(UsageError, match="a digest is 64 hexadecimal digits"):
        made(sha256="abc")
    assert head_config(made().card).sha256 == generated_hand().sha256


def test_pictures_have_a_page_to_turn_their_hands_on(checkpoint: Path) -> None:
    found = Predictor(checkpoint, device="cpu")([picture()])
    task = find_task("hand")
    page = task.files_of_pictures(["one"], found)["hands.html"]
    assert b"Hands in 1 pictures" in page
    files = task.files_of_video(found * 3, [0.0, 0.04, 0.08])
    assert {"glb", "skin.glb", "angles.csv", "motion.json"} == files.keys()
    table = io.BytesIO(files["angles.csv"]).read().decode().splitlines()
    assert len(table) == 4
    assert table[0].startswith("seconds,")


def test_a_box_of_another_picture_is_refused_before_its_surroundings_are_made() -> None:
    task = find_task("hand").asked(TaskOptions({"boxes": "0,0,40000,40000"}))
    with pytest.raises(UsageError, match=r"more than 2 times as large as the picture, which has 70x90 pixels"):
        task.shown(Image.new("RGB", (70, 90)), Preprocessing(image_size=(32, 32)), "a.png")
