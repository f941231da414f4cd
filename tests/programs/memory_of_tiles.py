"""Answer to a large picture by tiles, and print the most memory that this process has had, in bytes."""

import resource
import sys

import hybridvit

PER_UNIT = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes


def main(model: str, picture: str, tile: str, drawn: str) -> None:
    """`drawn` is the folder for the picture with the answer on it; the answer has 100 entries, if there are so many."""
    (answer,) = hybridvit.predict(model, picture, tile=int(tile), pictures=drawn, top=100).values()
    assert not isinstance(answer, Exception), answer
    print(len(answer.lines()), PER_UNIT * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(*sys.argv[1:])
