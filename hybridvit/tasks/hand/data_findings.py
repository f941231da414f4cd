"""What is wrong with the labels of hands: said by `check-data`, and before the first step of a training."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from hybridvit.data.check_contents import Contents, Looked
from hybridvit.data.check_report import Finding
from hybridvit.data.decode import decode, size_of
from hybridvit.errors import CheckpointError, ImageDecodeError, UsageError
from hybridvit.tasks.hand.data_faults import APART_M, FARTHEST_M, OTHER_MANO_M, of_kind
from hybridvit.tasks.hand.freihand.camera import projected
from hybridvit.tasks.hand.freihand.lists import ANCHOR, Lists, posed
from hybridvit.tasks.hand.mano.assets import GENERATED, find_assets
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import KEYPOINTS

MOST_POSED, MOST_LAID, MOST_OPENED = 32, 500, 64  # hands and pictures that stand for all
_AT_ONCE = 1000  # rows


def contents_of(root: Path, splits: Sequence[Lists]) -> Contents:
    """The data set for `check-data`: its pictures, which have no classes, and all findings."""
    rows = [
        (number, 0, os.fsencode(f"{lists.split}/rgb/{name}"))
        for number, lists in enumerate(splits)
        for name in lists.wanted()
        if name in lists.pictures
    ]

    def further(looked: Mapping[str, Looked], workers: int) -> list[Finding]:
        return of_kind("grey", [path for path, each in looked.items() if each.mode not in ("RGB", "")])

    found = [each for lists in splits for each in _with_own_hand(lists)]
    return Contents(
        root=str(root),
        names=[],
        splits={lists.split: [] for lists in splits},
        sets=[()],
        rows=rows,
        findings=found,
        of_pictures=False,
        further=further,
    )


def findings_before_training(lists: Lists, assets: str) -> list[Finding]:
    """All of the labels; pictures are opened here and there. `assets` names the hand that is to move."""
    found = findings_of(lists)
    if any(each.severity == "error" for each in found):
        return found
    with suppress(UsageError):  # where a hand has to be there, its absence is said then
        found += findings_of_meshes(lists, find_assets(assets))
    return [*found, *_grey(lists)]


def findings_of(lists: Lists) -> list[Finding]:
    """What the lists and the names of the pictures tell."""
    found = _counts(lists) or _pictures(lists)
    if found:
        return found
    found = [*_not_finite(lists), *_cameras(lists)]
    if found or "xyz" not in lists.arrays:
        return found
    found = [*_too_large(lists), *_behind(lists)]
    return found or [*_outside(lists), *_bones(lists)]


def findings_of_meshes(lists: Lists, assets: HandAssets) -> list[Finding]:
    """Whether the meshes are of that hand, as its keypoints and the lists' parameters tell."""
    examples = _of_other_hand(lists, assets)[1] if {"verts", "xyz"} <= set(lists.arrays) else []
    return [*of_kind("other-hand", examples), *_old_release(lists, assets)]


def _with_own_hand(lists: Lists) -> list[Finding]:
    """The findings with the hand that most of the meshes are of, if it is here."""
    found = findings_of(lists)
    if any(each.severity == "error" for each in found) or not {"verts", "xyz"} <= set(lists.arrays):
        return found
    hands = [find_assets(GENERATED)]
    with suppress(UsageError, CheckpointError):
        hands.insert(0, find_assets())
    for assets in hands:
        looked_at, examples = _of_other_hand(lists, assets)
        if len(examples) < looked_at / 2 or assets.kind == "MANO":
            return [*found, *findings_of_meshes(lists, assets)]
    return [*found, *of_kind("no-hand-to-compare", [lists.split])]


def _counts(lists: Lists) -> list[Finding]:
    lengths = lists.lengths
    if len(set(lengths.values())) == 1:
        return []
    return of_kind("label-counts", [f"{name}: {count:,} entries" for name, count in lengths.items()])


def _pictures(lists: Lists) -> list[Finding]:
    wanted = set(lists.wanted())
    folder = f"{lists.split}/rgb"
    surplus = sorted(lists.pictures - wanted)
    return [
        *of_kind("missing-image", [f"{folder}/{name}" for name in lists.missing()]),
        *of_kind("surplus-image", [f"{folder}/{name}" for name in surplus]),
    ]


def _faults(
    lists: Lists, name: str, is_bad: Callable[[np.ndarray], np.ndarray], say: Callable[[np.ndarray, np.ndarray], str]
) -> list[str]:
    """The entries of a list in which `is_bad` says so of a number; `say` has the entry and where it is bad."""
    found, array = [], lists.arrays[name]
    for start in range(0, len(array), _AT_ONCE):
        rows = array[start : start + _AT_ONCE]
        bad = is_bad(rows)
        for place in np.flatnonzero(bad.reshape(len(rows), -1).any(1)):
            where = np.argwhere(bad[place])[0]
            found.append(
                f"{lists.path(name).name}, entry {start + place}: {_point(name, where)}{say(rows[place], where)}"
            )
    return found


def _not_finite(lists: Lists) -> list[Finding]:
    found = []
    for name in lists.arrays:
        found += _faults(lists, name, lambda rows: ~np.isfinite(rows), lambda entry, where: str(entry[*where]))
    if lists.scale is not None:
        bad = np.flatnonzero(~np.isfinite(lists.scale))
        found += [f"{lists.path('scale').name}, entry {place}: {lists.scale[place]}" for place in bad]
    return of_kind("not-finite", found)


def _point(name: str, where: np.ndarray) -> str:
    """What a number of an entry belongs to."""
    return f"{KEYPOINTS[where[0]]} is " if name == "xyz" else f"vertex {where[0]} is " if name == "verts" else ""


def _cameras(lists: Lists) -> list[Finding]:
    def is_bad(cameras: np.ndarray) -> np.ndarray:
        bad = (cameras[:, 0, 0] <= 0) | (cameras[:, 1, 1] <= 0) | (cameras[:, 2] != (0, 0, 1)).any(1)
        return bad[:, None]

    def say(camera: np.ndarray, where: np.ndarray) -> str:
        last = ", ".join(f"{value:g}" for value in camera[2])
        return f"focal lengths {camera[0, 0]:g} and {camera[1, 1]:g}, last row {last}"

    return of_kind("bad-camera", _faults(lists, "K", is_bad, say))


def _too_large(lists: Lists) -> list[Finding]:
    def is_bad(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - points[:, :1], axis=2) > FARTHEST_M

    def say(points: np.ndarray, where: np.ndarray) -> str:
        return f"{np.linalg.norm(points[where[0]] - points[0]):.4g} m from the wrist"

    return of_kind("millimetres", _faults(lists, "xyz", is_bad, say))


def _behind(lists: Lists) -> list[Finding]:
    found = []
    for name in ("xyz", "verts"):
        if name in lists.arrays:
            found += _faults(
                lists, name, lambda rows: rows[..., 2:] <= 0, lambda entry, where: f"at z = {entry[where[0], 2]:.4g}"
            )
    return of_kind("behind-camera", found)


def _outside(lists: Lists) -> list[Finding]:
    try:
        width, height = size_of(str(lists.folder / lists.wanted()[0]))[0]
    except ImageDecodeError:  # found where pictures are opened
        return []
    points = projected(lists.arrays["K"][:].astype(np.float64), lists.arrays["xyz"][:].astype(np.float64)) + 0.5
    inside = np.any(np.all((points >= 0) & (points <= (width, height)), axis=2), axis=1)
    examples = [
        f"{lists.path('xyz').name}, entry {place}: the wrist is at ({points[place, 0, 0]:.0f}, "
        f"{points[place, 0, 1]:.0f}) of {width}x{height}"
        for place in np.flatnonzero(~inside)
    ]
    return of_kind("outside", examples)


def _bones(lists: Lists) -> list[Finding]:
    if lists.scale is None:
        return []
    points = lists.arrays["xyz"][:].astype(np.float64)
    lengths = np.linalg.norm(points[:, ANCHOR] - points[:, ANCHOR + 1], axis=1)
    examples = [
        f"{lists.path('scale').name}, entry {place}: {lists.scale[place]:.4g} m, but {lengths[place]:.4g} m in "
        f"{lists.path('xyz').name}"
        for place in np.flatnonzero(np.abs(lengths - lists.scale) > APART_M)
    ]
    return of_kind("bone-length", examples)


def _spread(count: int, most: int) -> list[int]:
    return list(range(0, count, max(1, -(-count // most))))


def _of_other_hand(lists: Lists, assets: HandAssets) -> tuple[int, list[str]]:
    """How many meshes were looked at, and those that are not of that hand."""
    from hybridvit.tasks.hand.mano.layer import HandLayer

    rows = HandLayer(assets).keypoint_rows.numpy()
    chosen = _spread(len(lists), MOST_LAID)
    laid, listed = rows @ lists.arrays["verts"][chosen], lists.arrays["xyz"][chosen]
    apart = np.linalg.norm(laid - listed, axis=2).mean(1)
    return len(chosen), [
        f"{lists.path('verts').name}, entry {chosen[place]}: {1000 * apart[place]:.1f} mm"
        for place in np.flatnonzero(apart > APART_M)
    ]


def _old_release(lists: Lists, assets: HandAssets) -> list[Finding]:
    if "verts" not in lists.arrays or "mano" not in lists.arrays:
        return []
    chosen = _spread(len(lists), MOST_POSED)
    made, _ = posed(assets, lists.arrays["mano"][chosen], lists.arrays["K"][chosen])
    apart = np.linalg.norm(made - lists.arrays["verts"][chosen], axis=2).mean(1)
    if apart.mean() <= OTHER_MANO_M:
        return []
    examples = [
        f"{lists.path('verts').name}, entry {row}: {1000 * each:.1f} mm"
        for row, each in zip(chosen, apart, strict=True)
    ]
    return of_kind("old-release", examples)


def _grey(lists: Lists) -> list[Finding]:
    names = lists.wanted()
    chosen = (names[place] for place in _spread(len(names), MOST_OPENED))
    return of_kind("grey", list(_not_colours(lists.folder, chosen)))


def _not_colours(folder: Path, names: Iterator[str]) -> Iterator[str]:
    for name in names:
        try:
            mode = decode(folder / name).facts.mode
        except ImageDecodeError:  # the error of a training that comes to it, where it is not skipped
            continue
        if mode != "RGB":
            yield f"{name} ({mode})"
