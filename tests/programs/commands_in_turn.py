"""Carry out command lines of hybridvit one after the other in one process, which imports everything but once.

Each line of stdin is JSON: {"words": [...], "environment": {...}}; each is answered by a line of JSON with the exit
code and what was printed.
"""

import contextlib
import io
import json
import os
import sys
import warnings

from hybridvit.cli.main import main

if __name__ == "__main__":
    answers = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.update(asked["environment"])
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            code = main(asked["words"])
        out.seek(0)
        print(json.dumps({"code": code, "out": out.read(), "err": err.getvalue()}), file=answers, flush=True)
