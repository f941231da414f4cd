"""Which operators an ONNX file uses, read from its bytes: the package that reads them whole is not needed to run it."""

from collections.abc import Iterator

from hybridvit.errors import CheckpointError

# Numbers of fields in ONNX's schema: ModelProto.graph, GraphProto.node, NodeProto.op_type and .attribute, and
# AttributeProto.g, the body of a branch or a loop.
GRAPH, NODE, OP_TYPE, ATTRIBUTE, BODY = 7, 1, 4, 5, 6
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5  # kinds of fields in Protocol Buffers
SIZES = {FIXED_64: 8, FIXED_32: 4}


def operators_of(content: bytes) -> frozenset[str]:
    """The names of all operators of the model in `content`, those inside branches and loops too.

    Raises CheckpointError for bytes that are no ONNX model.
    """
    try:
        found: set[str] = set()
        for graph in _fields(memoryview(content), GRAPH):
            found.update(_of_graph(graph))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"The operators of the ONNX file cannot be read ({error}). Export it again.") from error
    return frozenset(found)


def _of_graph(graph: memoryview) -> Iterator[str]:
    for node in _fields(graph, NODE):
        for name in _fields(node, OP_TYPE):
            yield bytes(name).decode("ascii")
        for attribute in _fields(node, ATTRIBUTE):
            for body in _fields(attribute, BODY):
                yield from _of_graph(body)


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The contents of the fields with that number, which hold bytes, in order."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _, place = _varint(message, place)
        elif kind == BYTES:
            size, place = _varint(message, place)
            if place + size > len(message):
                raise ValueError("it ends in the middle of a field")
            if number == wanted:
                yield message[place : place + size]
            place += size
        elif kind in SIZES:
            place += SIZES[kind]
        else:
            raise ValueError(f"it has a field of the unknown kind {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number that begins at `place`, seven bits to a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
