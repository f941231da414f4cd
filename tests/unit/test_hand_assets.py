"""Files of hands, where they are looked for, and what is wrong with those that are none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hybridvit.errors import CheckpointError, UsageError
from hybridvit.tasks.hand.mano.assets import HandAssets, default_path, find_assets, read_assets, write_assets
from hybridvit.tasks.hand.mano.generated_hand import generated_hand


def test_a_written_hand_reads_equal_and_has_the_same_digest_in_either_precision(tmp_path: Path) -> None:
    hand = generated_hand()
    write_assets(hand, tmp_path / "double.safetensors", double=True)
    write_assets(hand, tmp_path / "single.safetensors")
    double, single = (read_assets(tmp_path / f"{name}.safetensors") for name in ("double", "single"))
    for name, array in hand.arrays().items():
        np.testing.assert_array_equal(getattr(double, name), array)
        np.testing.assert_array_equal(getattr(single, name), array.astype("f4") if array.dtype.kind == "f" else array)
    assert double.notes() == single.notes() == hand.notes()
    assert double.sha256 == single.sha256 == hand.sha256
    assert (tmp_path / "single.safetensors").stat().st_size < 1.8e6


def test_the_digest_is_of_the_content() -> None:
    hand = generated_hand()
    moved = hand.v_template.copy()
    moved[5, 1] += 1e-5
    others = [hand.mirrored(), replace(hand, v_template=moved), replace(hand, tips=hand.tips[[0, 1, 2, 4, 3]])]
    assert len({hand.sha256, *(each.sha256 for each in others)}) == 4
    assert hand.mirrored().mirrored().sha256 == hand.sha256


def test_a_hand_mirrored_twice_is_the_same_to_the_bit() -> None:
    hand, left = generated_hand(), generated_hand().mirrored()
    assert left.side == "left"
    for name, array in left.mirrored().arrays().items():
        assert np.array_equal(array, getattr(hand, name)), name


def with_change(name: str, array: np.ndarray) -> HandAssets:
    return replace(generated_hand(), **{name: array})


def broken() -> dict[str, tuple[str, np.ndarray]]:
    hand = generated_hand()
    nan = hand.posedirs.copy()
    nan[3, 1, 4] = np.nan
    negative = hand.weights.copy()
    negative[7, :2] = (-0.1, 1.1)
    heavier, strayed = hand.weights.copy(), hand.joint_regressor.copy()
    heavier[5] *= 1.1
    strayed[5] *= 1.1
    flipped = hand.faces.copy()
    flipped[9] = flipped[9, ::-1]
    return {
        "weights is float64 of 778 x 15, but this hand's has to be 778 x 16 reals": ("weights", hand.weights[:, :15]),
        "faces is float64 of 1538 x 3, but this hand's has to be 1538 x 3 integers": ("faces", hand.faces * 1.0),
        "posedirs has 1 value not finite": ("posedirs", nan),
        "weights has -0.1, but no joint": ("weights", negative),
        "weights: row 5 sums to 1.1, but every row": ("weights", heavier),
        "joint_regressor: row 5 sums to 1.1": ("joint_regressor", strayed),
        "faces names vertices from 1 to 778": ("faces", hand.faces + 1),
        "two faces run along in the same direction": ("faces", flipped),
        "19 open edges, 16 of them in the first loop": ("faces", np.delete(hand.faces, 900, axis=0)),
        "tips are [0, 1, 2, 3, 778]": ("tips", np.array([0, 1, 2, 3, 778])),
        "209 m long, but one at rest has 0.1 to 0.4 m. Are these millimetres?": ("v_template", 1e3 * hand.v_template),
        "said to be a right hand, but its fingertips lie where a left one's do": (
            "v_template",
            hand.v_template * (-1, 1, 1),
        ),
    }


@pytest.mark.parametrize("message", broken())
def test_arrays_that_are_no_hand_are_refused_by_what_is_wrong(message: str) -> None:
    name, array = broken()[message]
    with pytest.raises(CheckpointError) as caught:
        with_change(name, array)
    assert message in str(caught.value)


def test_hands_are_looked_for_where_they_are_named_then_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path))
    monkeypatch.delenv("HYBRIDVIT_MANO", raising=False)
    assert find_assets("generated") is generated_hand()
    with pytest.raises(UsageError) as caught:
        find_assets()
    for part in (str(default_path()), "mano.is.tue.mpg.de", "`hybridvit mano convert", "--hand.assets generated"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    default_path().parent.mkdir()
    write_assets(generated_hand(), default_path())
    assert find_assets().sha256 == generated_hand().sha256
    monkeypatch.setenv("HYBRIDVIT_MANO", str(tmp_path / "other.safetensors"))
    with pytest.raises(UsageError, match=r"other.safetensors is not there, so there is no hand"):
        find_assets()
    write_assets(generated_hand().mirrored(), tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="holds a left hand, but models see right hands"):
        find_assets()


def test_files_that_hold_no_hand_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hand", encoding="utf-8")
    save_file({"weight": np.zeros(3)}, tmp_path / "other")
    save_file(generated_hand().arrays(), tmp_path / "bare", metadata={"hand": "{"})
    save_file({"v_template": np.zeros(())}, tmp_path / "one", metadata={"hand": '{"units": "m"}'})
    for name in ("text", "other", "bare", "one"):
        with pytest.raises(CheckpointError, match=f"{name} is no hand that `hybridvit mano convert` has written"):
            read_assets(tmp_path / name)
