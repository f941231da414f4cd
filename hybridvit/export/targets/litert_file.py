"""A .tflite file with a record behind its graph: a ZIP archive at the end, as TensorFlow Lite's label files are.

Interpreters read the graph from the front and stop where it ends; any unzip program shows the record:
`unzip -p model.tflite hybridvit.json` and, where class names are known, `unzip -p model.tflite labels.txt`.
"""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridvit.errors import CheckpointError
from hybridvit.export.seal import KEY

RECORD, LABELS = "hybridvit.json", "labels.txt"
IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every .tflite file
DAMAGES = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    OSError,
    struct.error,
    RecursionError,
)
"""What zipfile and json raise for an archive that was changed."""


@dataclass(frozen=True)
class TFLiteFile:
    """A graph and what is recorded about it."""

    graph: bytes
    metadata: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the graph and the record but for the digest itself."""
        others = sorted((key, value) for key, value in self.metadata.items() if key != KEY)
        return hashlib.sha256(self.graph + json.dumps(others).encode()).hexdigest()

    def sealed(self) -> "TFLiteFile":
        """The same with its digest in the record."""
        return TFLiteFile(self.graph, {**self.metadata, KEY: self.digest})

    def write(self, path: Path) -> None:
        """Write both to `path`; the names of the classes also as a file of their own."""
        names = json.loads(self.metadata.get("hybridvit.card", "{}")).get("class_names", ())
        path.write_bytes(self.graph)
        with zipfile.ZipFile(path, "a") as archive:  # stored, behind what is there
            _add(archive, RECORD, json.dumps(dict(self.metadata), ensure_ascii=False, indent=1))
            if names:
                _add(archive, LABELS, "".join(f"{name}\n" for name in names))

    @classmethod
    def read(cls, path: Path) -> "TFLiteFile":
        """The inverse of `write`. Raises CheckpointError for a file that is incomplete or not ours."""
        if not path.is_file():
            raise CheckpointError(f"There is no file {path}. Check the path, or export one with `hybridvit export`.")
        content = path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise CheckpointError(
                f"{path} is no .tflite file: it is damaged or something else. Export one with `hybridvit export "
                "CHECKPOINT --to litert`."
            )
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entry = archive.getinfo(RECORD)
                if entry.compress_type != zipfile.ZIP_STORED:  # as written: nothing grows beyond the file
                    raise ValueError("its record is compressed")
                end = min(each.header_offset for each in archive.infolist())
                metadata = json.loads(archive.read(entry))
            if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
                raise ValueError("its record is no table of texts")
        except DAMAGES as error:
            raise CheckpointError(
                f"{path} has no record of hybridvit behind its graph ({error}): it is incomplete, was changed, or was "
                "written by something else. Copy it again, or export it with `hybridvit export CHECKPOINT --to litert`."
            ) from error
        return cls(content[:end], metadata)


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(zipfile.ZipInfo(name), text.encode())  # with no date: equal exports are equal files
