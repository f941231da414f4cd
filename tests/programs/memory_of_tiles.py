"""Answer to a large picture by tiles, and print the most memory that this process has had, in bytes."""

import sys

from peak import peak_bytes

import hybridvit


def main(model: str, picture: str, tile: str, drawn: str) -> None:
    """`drawn` is the folder for the picture with the answer on it; the answer has 100 entries, if there are so many."""
    (answer,) = hybridvit.predict(model, picture, tile=int(tile), pictures=drawn, top=100).values()
    assert not isinstance(answer, Exception), answer
    print(len(answer.lines()), peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
