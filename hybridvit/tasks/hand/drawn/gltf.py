"""A glTF scene that is put together piece by piece and written as one binary file (glTF 2.0, section 4)."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}  # by the numbers of a row
_KINDS = {"u1": 5121, "u4": 5125, "f4": 5126}  # types of numbers, as OpenGL counts them
_VERTICES, _INDICES = 34962, 34963  # what a part of the buffer is for
_TRIANGLES, _LINES = 4, 1
_SKIN, _PLAIN = 0, 1  # materials
_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942


class Scene:
    """Nodes with meshes, in metres, y up. What a method adds is told by its number, as glTF refers to it."""

    def __init__(self, note: str = "") -> None:
        asset = {"version": "2.0", "generator": "hybridvit", **({"copyright": note} if note else {})}
        self._parts: list[bytes] = []
        self._size = 0
        self._roots: list[int] = []
        self._json: dict[str, Any] = {"asset": asset, "scene": 0, "nodes": [], "meshes": [], "accessors": [],
            "bufferViews": [], "materials": [_material("skin"), _material("lines")]}  # fmt: skip

    def points(self, values: np.ndarray) -> int:
        """Positions n 3, of vertices or of how far these move."""
        return self._accessor(values.astype("<f4"), _VERTICES, bounds=True)

    def vectors(self, values: np.ndarray) -> int:
        """Float numbers n 3 or n 4."""
        return self._accessor(values.astype("<f4"), _VERTICES)

    def small_numbers(self, values: np.ndarray) -> int:
        """Small numbers n 4."""
        return self._accessor(values.astype("u1"), _VERTICES)

    def colours(self, values: np.ndarray) -> dict[str, int]:
        """Colours of vertices (n 3, sRGB from 0 to 255) as an attribute; glTF wants them linear."""
        share = values / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        opaque = np.concatenate((linear, np.ones((len(values), 1))), 1)
        return {"COLOR_0": self._accessor((255 * opaque).round().astype("u1"), _VERTICES, normalised=True)}

    def triangles(
        self, faces: np.ndarray, attributes: Mapping[str, int], targets: Sequence[Mapping[str, int]] = ()
    ) -> dict[str, Any]:
        """What a mesh is made of: faces (f 3) between vertices, and what these may become."""
        indices = self._accessor(faces.astype("<u4").reshape(-1, 1), _INDICES)
        moved = {"targets": [dict(each) for each in targets]} if targets else {}
        return {"attributes": dict(attributes), "indices": indices, "material": _SKIN, "mode": _TRIANGLES, **moved}

    def lines(self, attributes: Mapping[str, int]) -> dict[str, Any]:
        """A line between each two vertices."""
        return {"attributes": dict(attributes), "material": _PLAIN, "mode": _LINES}

    def mesh(self, name: str, primitive: Mapping[str, Any], weights: Sequence[float] = ()) -> int:
        moved = {"weights": list(weights)} if weights else {}
        return _added(self._json["meshes"], {"name": name, "primitives": [primitive], **moved})

    def node(self, name: str, **facts: Any) -> int:
        """A node at the root until it is put elsewhere; `facts` are glTF's: mesh, skin, translation, rotation."""
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in facts.items()}
        number = _added(self._json["nodes"], {"name": name, **plain})
        self._roots.append(number)
        return number

    def put(self, node: int, parent: int) -> None:
        """Make a node the child of another."""
        self._roots.remove(node)
        self._json["nodes"][parent].setdefault("children", []).append(node)

    def skin(self, nodes: Sequence[int], joints: np.ndarray) -> int:
        """Nodes that move a mesh which rests with them at these places (j 3); the first is above all others."""
        inverse = np.tile(np.eye(4), (len(joints), 1, 1))
        inverse[:, 3, :3] = -joints  # in columns
        matrices = self._accessor(inverse.reshape(-1, 16).astype("<f4"))
        made = {"inverseBindMatrices": matrices, "joints": list(nodes), "skeleton": nodes[0]}
        return _added(self._json.setdefault("skins", []), made)

    def animate(self, seconds: np.ndarray, channels: Sequence[tuple[int, str, np.ndarray]]) -> None:
        """Let nodes change at times: a node, what of it, and values of the rows of each time."""
        times = self._accessor(seconds.astype("<f4")[:, None], bounds=True)
        outputs = [self._accessor(values.astype("<f4")) for _, _, values in channels]
        samplers = [{"input": times, "output": output, "interpolation": "LINEAR"} for output in outputs]
        targets = [
            {"sampler": number, "target": {"node": node, "path": path}}
            for number, (node, path, _) in enumerate(channels)
        ]
        self._json["animations"] = [{"name": "video", "samplers": samplers, "channels": targets}]

    def content(self) -> bytes:
        """The file: a head, the scene as JSON, and the numbers."""
        binary = b"".join(self._parts)
        made = {**self._json, "scenes": [{"nodes": self._roots}], "buffers": [{"byteLength": len(binary)}]}
        if any(p["material"] == _PLAIN for mesh in made["meshes"] for p in mesh["primitives"]):
            made["extensionsUsed"] = ["KHR_materials_unlit"]
        else:
            made["materials"] = made["materials"][:1]
        text = json.dumps(made, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BIN) + binary
        return struct.pack("<III", _MAGIC, _VERSION, 12 + len(chunks)) + chunks

    def _accessor(
        self, rows: np.ndarray, use: int | None = None, *, bounds: bool = False, normalised: bool = False
    ) -> int:
        part = {"buffer": 0, "byteOffset": self._size, "byteLength": rows.nbytes}
        view = _added(self._json["bufferViews"], part | ({} if use is None else {"target": use}))
        content = rows.tobytes()
        self._parts.append(content + bytes(-len(content) % 4))
        self._size += len(self._parts[-1])
        made: dict[str, Any] = {"bufferView": view, "componentType": _KINDS[rows.dtype.str[1:]], "count": len(rows),
            "type": _TYPES[rows.shape[1]]}  # fmt: skip
        if bounds:
            made |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        return _added(self._json["accessors"], made | ({"normalized": True} if normalised else {}))


def _material(name: str) -> dict[str, Any]:
    surface = {"metallicFactor": 0.0, "roughnessFactor": 0.75}
    if name == "lines":
        return {"name": name, "pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}}
    return {"name": name, "pbrMetallicRoughness": surface, "doubleSided": True}


def _added(things: list[Any], thing: Any) -> int:
    things.append(thing)
    return len(things) - 1
