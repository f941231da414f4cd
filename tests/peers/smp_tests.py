"""The tests of encoders of segmentation_models_pytorch over our models, beside those over timm's of the same names.

    python tests/peers/smp_tests.py FOLDER [--models NAME ...] [--tests NAME ...]

FOLDER is a checkout of its repository at the version that is installed; the tests are not in its distributions. They
stay there: only `tests/encoders/base.py` is loaded. 1 is the exit code if ours fails where timm's passes; where timm
has no model of the name, if ours fails at all. Scripting is refused with a reason, and no failure.
"""

import argparse
import importlib
import sys
import unittest
from pathlib import Path

import timm

import hybridvit

PREFIX = "hybridvit_"
REFUSED = "torch.jit.script cannot read"  # with a reason, so no failure


def results_of(tester: type[unittest.TestCase], name: str, chosen: list[str]) -> dict[str, str]:
    """Run the tests of an encoder, or those chosen; what came out, by test."""
    options = {"encoder_names": [f"tu-{name}"], "supports_dilated": False}
    case = type("Encoder", (tester,), options)
    results = {}
    for test in chosen or unittest.defaultTestLoader.getTestCaseNames(case):
        result = unittest.TestResult()
        case(test).run(result)
        found = result.failures + result.errors
        error = found[0][1].splitlines()[-1] if found else ""
        outcome = (
            "refused: " if REFUSED in error else "failed: " if error else "skipped" if result.skipped else "passed"
        )
        results[test] = outcome + error
    return results


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Tests of segmentation_models_pytorch's encoders over our models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--models", nargs="+", default=["fastvit_t8", "fastvit_sa12", "fastervit_0", "swin_tiny_hat"], metavar="NAME"
    )
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="these alone")
    options = parser.parse_args()
    unknown = set(options.models) - set(hybridvit.list_models())
    if unknown or not (options.folder / "tests" / "encoders" / "base.py").is_file():
        parser.error(f"no such models: {sorted(unknown)}" if unknown else "the folder has no tests/encoders/base.py")
    sys.path.insert(0, str(options.folder.resolve()))
    tester = importlib.import_module("tests.encoders.base").BaseEncoderTester
    worse = []
    for name in options.models:
        ours = results_of(tester, PREFIX + name, options.tests)
        theirs = results_of(tester, name, options.tests) if name in timm.list_models() else {}
        for test, outcome in ours.items():
            of_timm = theirs.get(test, "-")
            print(f"{name:16} {test:24} ours {outcome}  timm's {of_timm}", flush=True)
            if outcome.startswith("failed") and not of_timm.startswith("failed"):
                worse.append((test, name))
    print("worse:", worse)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
