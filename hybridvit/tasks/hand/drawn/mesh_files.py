"""Meshes of hands as files that other programs open: OBJ, PLY and GLB, the last one with a skeleton or animated.

Vertices come in a camera's frame (x to the right, y down, z away), metres. In every file they are turned by half a
circle about x, so that y is up and the hand is seen from the front, as glTF and most viewers have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridvit.tasks.hand.drawn.gltf import Scene
from hybridvit.tasks.hand.mano.hand_assets import HandAssets
from hybridvit.tasks.hand.mano.keypoints import JOINTS, PARENTS
from hybridvit.tasks.hand.mano.quaternion import quaternions

FRONT = np.array((1.0, -1.0, -1.0))  # of a camera's frame: what turns it for viewers
_FRAME_NOTE = "metres; the camera's frame turned by half a circle about x: y is up"


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """What is written of one hand."""

    vertices: np.ndarray  # v 3, metres, in the camera's frame
    faces: np.ndarray  # f 3
    colours: np.ndarray  # v 3, 0 to 255
    skeleton: "Skeleton | None" = None
    note: str = ""  # whose arrays are inside, and their licence: a line of every file


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Lines between keypoints."""

    keypoints: np.ndarray  # k 3, metres, in the camera's frame
    bones: Sequence[tuple[int, int]]
    colours: np.ndarray  # of the bones, n 3, 0 to 255


@dataclass(frozen=True, kw_only=True)
class Skin:
    """How the vertices of a resting hand follow its joints."""

    rest: np.ndarray  # v 3, metres: with the shape, without the pose
    joints: np.ndarray  # j 3, of the rest
    parents: Sequence[int]  # of the joints; -1: the root, which is the first
    names: Sequence[str]  # of the joints
    weights: np.ndarray  # v j, rows sum to 1

    @classmethod
    def of(cls, assets: HandAssets, shape: np.ndarray) -> "Skin":
        """That of a hand with shape parameters (10)."""
        rest = assets.v_template + assets.shapedirs @ shape
        return cls(
            rest=rest, joints=assets.joint_regressor @ rest, parents=PARENTS, names=JOINTS, weights=assets.weights
        )


@dataclass(frozen=True, kw_only=True)
class SkinnedFile:
    """An animated GLB whose joints turn, and how far its vertices are from those of the frames."""

    content: bytes = field(repr=False)
    mean_mm: float
    largest_mm: float


def obj(mesh: Mesh) -> bytes:
    """The mesh as Wavefront OBJ, with the colours behind the coordinates."""
    lines = [f"# {mesh.note}"] if mesh.note else []
    lines.append(f"# {_FRAME_NOTE}")
    rows = np.hstack((mesh.vertices * FRONT, mesh.colours / 255))
    lines += ["v {:.7g} {:.7g} {:.7g} {:.4g} {:.4g} {:.4g}".format(*row) for row in rows.tolist()]
    normals = vertex_normals(mesh.vertices, mesh.faces) * FRONT
    lines += ["vn {:.5g} {:.5g} {:.5g}".format(*row) for row in normals.tolist()]
    lines += ["f {0}//{0} {1}//{1} {2}//{2}".format(*face) for face in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def ply(mesh: Mesh) -> bytes:
    """The mesh as binary PLY, with normals and colours."""
    kinds = [(axis, "<f4") for axis in ("x", "y", "z", "nx", "ny", "nz")] + [
        (c, "u1") for c in ("red", "green", "blue")
    ]
    names = {"<f4": "float", "u1": "uchar"}
    vertices = np.empty(len(mesh.vertices), kinds)
    columns = np.hstack((mesh.vertices * FRONT, vertex_normals(mesh.vertices, mesh.faces) * FRONT, mesh.colours))
    for (name, _), column in zip(kinds, columns.T, strict=True):
        vertices[name] = column
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    head = [
        "ply", "format binary_little_endian 1.0",
        *(f"comment {note}" for note in (mesh.note, _FRAME_NOTE) if note),
        f"element vertex {len(vertices)}",
        *(f"property {names[kind]} {name}" for name, kind in kinds),
        f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    return ("\n".join(head) + "\n").encode() + vertices.tobytes() + faces.tobytes()


def glb(mesh: Mesh) -> bytes:
    """The mesh as binary glTF with normals and colours, and its skeleton as lines beside it."""
    scene = Scene(mesh.note)
    scene.node("hand", mesh=scene.mesh("hand", scene.triangles(mesh.faces, _attributes(scene, mesh))))
    skeleton = mesh.skeleton
    if skeleton is not None:
        ends = skeleton.keypoints[np.array(skeleton.bones)].reshape(-1, 3) * FRONT
        colours = scene.colours(skeleton.colours.repeat(2, axis=0))
        scene.node("skeleton", mesh=scene.mesh("skeleton", scene.lines({"POSITION": scene.points(ends), **colours})))
    return scene.content()


def morphed_glb(mesh: Mesh, frames: np.ndarray, seconds: np.ndarray) -> bytes:
    """A mesh that goes through the vertices of all frames (n v 3): exact, 19 kB a frame.

    `mesh.vertices` are not read. Raises ValueError unless times increase, one for each frame.
    """
    _check_times(frames, seconds)
    scene = Scene(mesh.note)
    normals = np.stack([vertex_normals(frame, mesh.faces) for frame in frames])
    first = Mesh(vertices=frames[0], faces=mesh.faces, colours=mesh.colours)
    targets = [
        {"POSITION": scene.points((frame - frames[0]) * FRONT), "NORMAL": scene.vectors((normal - normals[0]) * FRONT)}
        for frame, normal in zip(frames[1:], normals[1:], strict=True)
    ]
    primitive = scene.triangles(mesh.faces, _attributes(scene, first), targets)
    node = scene.node("hand", mesh=scene.mesh("hand", primitive, weights=[0.0] * len(targets)))
    if targets:
        weights = np.eye(len(frames), dtype=np.float32)[:, 1:]
        scene.animate(seconds, [(node, "weights", weights.reshape(-1, 1))])
    return scene.content()


def skinned_glb(
    mesh: Mesh, skin: Skin, rotations: np.ndarray, roots: np.ndarray, frames: np.ndarray, seconds: np.ndarray
) -> SkinnedFile:
    """A mesh whose joints turn (rotations n j 3 3, relative to their parents) about a root that moves (n 3).

    It can be edited in Blender and takes 256 bytes a frame, but glTF has four weights for a vertex and no pose blend
    shapes: how far its vertices are from those of the frames (n v 3) is told. `mesh.vertices` are not read. Raises
    ValueError unless times increase, one for each frame.
    """
    _check_times(frames, seconds)
    places, weights = four_weights(skin.weights)
    scene = Scene(mesh.note)
    nodes = []
    for joint, (name, parent) in enumerate(zip(skin.names, skin.parents, strict=True)):
        from_parent = skin.joints[joint] - (skin.joints[parent] if parent >= 0 else 0)
        nodes.append(scene.node(name, translation=from_parent))
        if parent >= 0:
            scene.put(nodes[joint], nodes[parent])
    turn = scene.node("camera", rotation=(1.0, 0.0, 0.0, 0.0))  # half a circle about x
    scene.put(nodes[0], turn)
    rest = Mesh(vertices=skin.rest * FRONT, faces=mesh.faces, colours=mesh.colours)  # turned back by _attributes
    attributes = {
        **_attributes(scene, rest),
        "JOINTS_0": scene.small_numbers(places),
        "WEIGHTS_0": scene.vectors(weights),
    }
    scene.node("hand", mesh=scene.mesh("hand", scene.triangles(mesh.faces, attributes)),
               skin=scene.skin(nodes, skin.joints))  # fmt: skip
    turns = [(node, "rotation", quaternions(rotations[:, joint])) for joint, node in enumerate(nodes)]
    scene.animate(seconds, [(nodes[0], "translation", roots), *turns])
    kept = np.zeros(skin.weights.shape)
    np.add.at(kept, (np.arange(len(kept))[:, None], places), weights)
    off = np.linalg.norm(skinned(skin, kept, rotations, roots) - frames, axis=-1) * 1e3
    return SkinnedFile(content=scene.content(), mean_mm=float(off.mean()), largest_mm=float(off.max()))


def skinned(skin: Skin, weights: np.ndarray, rotations: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Vertices (n v 3) of the resting mesh moved by its joints with weights (v j)."""
    turns, places = np.empty_like(rotations), np.empty(rotations.shape[:3])
    for joint, parent in enumerate(skin.parents):
        if parent < 0:
            turns[:, joint], places[:, joint] = rotations[:, joint], roots
        else:
            turns[:, joint] = turns[:, parent] @ rotations[:, joint]
            places[:, joint] = places[:, parent] + turns[:, parent] @ (skin.joints[joint] - skin.joints[parent])
    shifts = places - np.einsum("njab,jb->nja", turns, skin.joints)
    mixed = np.einsum("vj,njab->nvab", weights, turns)
    return np.einsum("nvab,vb->nva", mixed, skin.rest) + np.einsum("vj,nja->nva", weights, shifts)


def four_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The joints (v 4, uint8) that move each vertex most, and their weights (v 4, float32), which sum to 1.

    A place without weight has joint 0.
    """
    places = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    largest = np.take_along_axis(weights, places, 1).clip(0)
    largest = (largest / largest.sum(1, keepdims=True)).astype(np.float32)
    return np.where(largest > 0, places, 0).astype(np.uint8), largest


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of vertices (v 3), each the mean of its faces' by area; those of no face point along z."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    sums = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(sums, faces[:, corner], across)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 1e-20, sums / lengths.clip(1e-20), (0.0, 0.0, 1.0))


def _attributes(scene: Scene, mesh: Mesh) -> dict[str, int]:
    return {
        "POSITION": scene.points(mesh.vertices * FRONT),
        "NORMAL": scene.vectors(vertex_normals(mesh.vertices, mesh.faces) * FRONT),
        **scene.colours(mesh.colours),
    }


def _check_times(frames: np.ndarray, seconds: np.ndarray) -> None:
    if len(frames) != len(seconds) or not len(frames) or (np.diff(seconds) <= 0).any() or seconds[0] < 0:
        raise ValueError(
            f"{len(frames)} frames were given {len(seconds)} times ({_some(seconds)}). An animation needs one for "
            "each frame, in seconds from 0 on, each after the one before."
        )


def _some(seconds: np.ndarray) -> str:
    """The first of them, for a message."""
    return ", ".join(f"{each:g}" for each in seconds[:5]) + (" ..." if len(seconds) > 5 else "")
