"""What is said beside the answers, where several processes may speak at once."""

import sys


def remark(text: str) -> None:
    """Write `text` and the end of its line to stderr, as one write.

    print makes two of it where PYTHONUNBUFFERED is set, and what another process says may come between.
    """
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
