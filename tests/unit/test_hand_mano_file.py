"""MANO's file is read without running anything, and what is no such file is refused."""

import hashlib
import json
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mano_stand_in as stand_in
import numpy as np
import pytest
import scipy.sparse

from hybridvit.cli import main
from hybridvit.errors import CheckpointError, UsageError
from hybridvit.tasks.hand.mano.assets import default_path, read_assets
from hybridvit.tasks.hand.mano.file import read_mano

HAND = stand_in.in_manos_order()
OLD_GLOBALS = {
    *("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "scipy.sparse.csc csc_matrix"),
    *("chumpy.ch Ch", "chumpy.reordering Select", "__builtin__ set"),
}


@pytest.fixture(scope="module")
def original() -> bytes:
    return stand_in.dumped(stand_in.content(HAND))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Any]:
    def reads(data: bytes, **options: Any) -> Any:
        (tmp_path / "MANO_RIGHT.pkl").write_bytes(data)
        return read_mano(tmp_path / "MANO_RIGHT.pkl", **options)

    return reads


def test_the_stand_in_has_the_form_of_manos_file(original: bytes) -> None:
    codes = list(pickletools.genops(original))
    assert {argument for code, argument, _ in codes if code.name == "GLOBAL"} == OLD_GLOBALS
    assert {"BINSTRING", "SHORT_BINSTRING"} <= {code.name for code, _, _ in codes}
    assert 3.7e6 < len(original) < 3.9e6


COPIES: dict[str, Callable[[], bytes]] = {
    "as Python 2 wrote it": lambda: stand_in.dumped(stand_in.content(HAND)),
    "new names, protocol 2": lambda: stand_in.dumped(stand_in.content(HAND), old=False),
    "new names, protocol 4": lambda: stand_in.dumped(stand_in.content(HAND), protocol=4, old=False),
    "a new protocol": lambda: stand_in.dumped(stand_in.content(HAND), protocol=5, old=False),
    **{
        f"plain arrays, protocol {number}": lambda number=number: pickle.dumps(stand_in.plain(HAND), protocol=number)
        for number in (2, 3, 4, 5)
    },
    **{
        f"a {form} matrix of scipy's": lambda form=form: pickle.dumps(
            stand_in.plain(HAND)
            | {"J_regressor": getattr(scipy.sparse, f"{form}_matrix")(HAND.joint_regressor)}
            | {"v_template": np.asfortranarray(HAND.v_template).astype(">f8"), "f": HAND.faces.astype("u2")}
        )
        for form in ("csc", "csr", "coo")
    },
}


@pytest.mark.parametrize("name", COPIES)
def test_every_copy_reads_equal(name: str, read: Callable[..., Any]) -> None:
    data = COPIES[name]()
    found = read(data, side="right")
    for name, array in HAND.arrays().items():
        np.testing.assert_array_equal(getattr(found.assets, name), array)
    assert (found.assets.side, found.assets.kind) == ("right", "MANO")
    assert found.assets.source_sha256 == hashlib.sha256(data).hexdigest()
    assert len(found.remarks) == 1
    assert "is not the MANO_RIGHT.pkl of mano_v1_2.zip to the byte" in found.remarks[0]


def changed(**changes: Any) -> bytes:
    return stand_in.dumped(stand_in.content(HAND, **changes))


def without(name: str) -> bytes:
    values = stand_in.content(HAND)
    del values[name]
    return stand_in.dumped(values)


def test_keys_that_no_hand_needs_are_left_out_and_named(read: Callable[..., Any]) -> None:
    found = read(changed(author="nobody", date=5))
    assert "also holds author, date, which no hand needs" in found.remarks[0]


REFUSED: dict[str, Callable[[], bytes]] = {
    "has no 'weights', which a hand needs": lambda: without("weights"),
    "has 'v_template' of 777 x 3, but a hand's is 778 x 3": lambda: changed(v_template=HAND.v_template[1:]),
    "has 'f' of 1537 x 3, but a hand's is 1538 x 3": lambda: changed(f=HAND.faces[1:]),
    "has 'f' in a form that no hand model has (its numbers are no integers)": lambda: changed(f=HAND.faces * 1.0),
    "has 'weights' in a form that no hand model has (it is no array)": lambda: changed(weights=[[0.5] * 16] * 778),
    "(its numbers are no reals or integers)": lambda: changed(weights=HAND.weights.astype(complex)),
    "has joints that hang on (0, 0, 0": lambda: changed(kintree_table=np.zeros((2, 16), int)),
    "posedirs has 1 value not finite": lambda: changed(posedirs=_with_nan(HAND.posedirs)),
    "weights: row 5 sums to": lambda: changed(weights=_scaled_row(HAND.weights)),
    "joint_regressor: row 5 sums to": lambda: changed(J_regressor=stand_in.sparse(_scaled_row(HAND.joint_regressor))),
    "Are these millimetres?": lambda: changed(v_template=1e3 * HAND.v_template),
    "its indptr does not rise": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, indptr=np.arange(779)[::-1].copy())
    ),
    "an entry lies outside of it": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, indices=np.full(np.count_nonzero(HAND.joint_regressor), 16))
    ),
    "some of its values are not finite": lambda: changed(
        J_regressor=stand_in.sparse(HAND.joint_regressor, data=np.full(np.count_nonzero(HAND.joint_regressor), np.inf))
    ),
    "is a zip file. Unzip it first": lambda: b"PK\x03\x04" + bytes(100),
    "has 0 bytes, but MANO_RIGHT.pkl has 3.8 million": lambda: b"",
}


def _with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[3, 1, 4] = np.nan
    return array


def _scaled_row(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[5] *= 1.1
    return array


@pytest.mark.parametrize("message", REFUSED)
def test_content_that_is_no_hand_is_refused_by_what_is_wrong(message: str, read: Callable[..., Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(REFUSED[message]())
    assert message in str(caught.value)
    assert "MANO_RIGHT.pkl" in str(caught.value)


def test_a_side_that_the_data_contradict_is_refused(original: bytes, read: Callable[..., Any]) -> None:
    with pytest.raises(CheckpointError, match=r"said to be a left hand, but its fingertips lie where a right one's do"):
        read(original, side="left")


def test_a_file_too_large_to_be_a_hand_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.pkl").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(CheckpointError, match="has 68,157,440 bytes, but"):
        read_mano(tmp_path / "large.pkl")
    with pytest.raises(UsageError, match=r"larg\.pkl is no file. Nearest: 'large\.pkl'"):
        read_mano(tmp_path / "larg.pkl")


def test_convert_writes_what_is_looked_for_and_info_tells_of_it(
    original: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(original)
    assert main(["mano", "convert", str(tmp_path / "MANO_RIGHT.pkl")]) == 0
    said = capsys.readouterr()
    assert f"Wrote {default_path()}: the right hand of {tmp_path / 'MANO_RIGHT.pkl'}, 778 vertices" in said.out
    assert "may not be passed on" in said.out
    assert "to the byte; its content passed every check" in said.err
    written = read_assets(default_path())
    assert written.sha256 == HAND.sha256
    assert written.v_template.dtype == np.float32
    assert "mano.is.tue.mpg.de" in written.licence
    assert main(["mano", "info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["side"] == "right"
    assert facts["bones_mm"]["middle_1 - middle_2"] == pytest.approx(45, abs=0.01)
    assert facts["span_mm"][0] == pytest.approx(209, abs=1)
    assert main(["mano", "info", str(default_path())]) == 0
    assert "middle_1 - middle_2    45.0 mm" in capsys.readouterr().out


def left_file(*, fault: bool) -> bytes:
    left = HAND.mirrored()
    shapes = HAND.shapedirs[:, 0] if fault else left.shapedirs[:, 0]
    moves = np.stack((shapes, left.shapedirs[:, 1], left.shapedirs[:, 2]), axis=1)
    values = stand_in.plain(left) | {"shapedirs": moves}
    return pickle.dumps(values)


@pytest.mark.parametrize("fault", [True, False])
def test_the_known_fault_of_the_left_hand_is_corrected_beside_the_right_one(
    fault: bool, original: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRIDVIT_CACHE", str(tmp_path / "cache"))
    right, left = tmp_path / "MANO_RIGHT.pkl", tmp_path / "MANO_LEFT.pkl"
    right.write_bytes(original)
    left.write_bytes(left_file(fault=fault))
    assert main(["mano", "convert", str(left)]) == 0
    assert "can be told beside the right hand alone: convert MANO_RIGHT.pkl too" in capsys.readouterr().err
    assert main(["mano", "convert", str(left), str(right), "--double"]) == 0
    assert ("a known fault of MANO_LEFT.pkl: corrected" in capsys.readouterr().err) is fault
    expected = HAND.mirrored()
    np.testing.assert_array_equal(read_assets(default_path("left")).shapedirs, expected.shapedirs)
    assert main(["mano", "convert", str(left), "--keep_left_fault"]) == 0  # the right hand is there now
    assert ("left so, as asked for" in capsys.readouterr().err) is fault
    kept = read_assets(default_path("left")).shapedirs
    assert np.array_equal(kept, expected.shapedirs.astype("f4")) is not fault


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "a.pkl", "b.pkl", "--output", "c"], "--output is c, but 2 files are given"),
        (["convert", "a.pkl", "a.pkl"], "Two of the files hold a right hand"),
        (["convert", "a.pkl", "--side", "up"], "--side is 'up'"),
        (["convert", "b.pkl"], "b.pkl is no file. Nearest: 'a.pkl'"),
        (["info", "b"], "b is not there, so there is no hand to move. MANO's arrays may not be passed on"),
        (["info", "a.pkl"], "a.pkl is no hand that `hybridvit mano convert` has written"),
        (["convrt"], "`hybridvit mano` has no command 'convrt'. Nearest: 'convert'."),
    ],
)
def test_a_wrong_use_of_the_command_is_one_paragraph(
    words: list[str],
    message: str,
    original: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(original)
    assert main(["mano", *words]) in (2, 5)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_group_tells_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mano", "--help"]) == 0
    said = capsys.readouterr().out
    assert "convert     Make a plain file of MANO_RIGHT.pkl" in said
    assert "info        Tell what hand is in a file" in said
    assert main(["mano"]) == 2
    assert main(["--help"]) == 0
    assert "mano        Make MANO's hand ready for use" in capsys.readouterr().out
