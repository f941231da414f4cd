"""A script without `if __name__ == "__main__":` that has processes load a set, with the start method it is given."""

import sys

from hybridvit.data.generated import GeneratedImages
from hybridvit.data.loader import make_eval_loader
from hybridvit.errors import HybridViTError


def say(line: str) -> None:
    """In one write, for three processes say something: print makes two where PYTHONUNBUFFERED is set."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


images = GeneratedImages(length=20_000)  # its names do not fit into the pipe to a process that reads nothing
say("begins")
try:
    next(iter(make_eval_loader(images, batch_size=4, workers=2, start_method=sys.argv[1])))  # type: ignore[arg-type]
except HybridViTError as error:
    say(f"{type(error).__name__}: {error}")
