"""The table of a job: pictures with their answers, as columns that each part has."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hybridvit.scores import Columns, Kind

if TYPE_CHECKING:
    from pyarrow import DataType, Schema

VERSION = "1"
FILES: Columns = {"name": str, "content": bytes}
"""What of an answer is a file of its own."""


def schema_of(columns: Columns, metadata: Mapping[str, str]) -> "Schema":
    """Image, error, width and height, and the columns of the answers, which are null where there is an error."""
    import pyarrow

    own = {
        "image": pyarrow.string(),
        "error": pyarrow.string(),
        "width": pyarrow.int32(),
        "height": pyarrow.int32(),
    }
    theirs = {name: arrow_type(kind) for name, kind in columns.items() if name not in own}
    return pyarrow.schema(own | theirs, metadata={"hybridvit.schema": VERSION, **metadata})


def arrow_type(kind: Kind) -> "DataType":
    """The type of a column of such values, as pyarrow would find it from values."""
    import pyarrow

    if isinstance(kind, list):
        return pyarrow.list_(arrow_type(kind[0]))
    if isinstance(kind, type):
        known = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bytes: pyarrow.binary()}
        return known[kind]
    return pyarrow.struct({name: arrow_type(each) for name, each in kind.items()})
