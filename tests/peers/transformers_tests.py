"""The tests of transformers' TimmBackbone over our models, beside those over timm's `fastvit_t8`.

    python tests/peers/transformers_tests.py FOLDER [--models NAME ...] [--tests PATTERN]

FOLDER is a checkout of its repository at the version that is installed; the test of TimmBackbone is not in its
distributions. It stays there: its class is given the name of the model, and the last of four stages instead of ResNet's
five maps. 1 is the exit code if ours fails where timm's passes. Tests that name another model themselves ask the Hub
for it; without a network they fail, or are skipped, for ours and timm's alike.
"""

import argparse
import fnmatch
import importlib
import sys
import unittest
from collections import Counter
from pathlib import Path
from types import ModuleType

import hybridvit

PREFIX = "hybridvit_"
OF_TIMM = "fastvit_t8"
FILE = Path("tests", "models", "timm_backbone", "test_modeling_timm_backbone.py")


def results_of(tests: ModuleType, name: str, pattern: str) -> dict[str, str]:
    """Run the tests over the model that timm's registry has under `name`; what came out, by test."""

    def set_up(self: unittest.TestCase) -> None:
        tests.TimmBackboneModelTest.setUp(self)
        self.model_tester = tests.TimmBackboneModelTester(self, backbone=name, out_indices=[3])

    case = type("Backbone", (tests.TimmBackboneModelTest,), {"setUp": set_up})
    results = {}
    for test in fnmatch.filter(unittest.defaultTestLoader.getTestCaseNames(case), pattern):
        result = unittest.TestResult()
        case(test).run(result)
        found = result.failures + result.errors
        error = found[0][1].splitlines()[-1] if found else ""
        results[test] = f"failed: {error}" if found else "skipped" if result.skipped else "passed"
    return results


def counted(results: dict[str, str]) -> str:
    """How many passed, failed and were skipped, in words."""
    counts = Counter(outcome.partition(":")[0] for outcome in results.values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Tests of transformers' TimmBackbone over our models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--models", nargs="+", default=["fastvit_debug", "fastvit_t8", "fastervit_debug"], metavar="NAME"
    )
    parser.add_argument("--tests", default="*", help="a pattern as of file names", metavar="PATTERN")
    options = parser.parse_args()
    unknown = set(options.models) - set(hybridvit.list_models())
    if unknown or not (options.folder / FILE).is_file():
        parser.error(f"no such models: {sorted(unknown)}" if unknown else f"the folder has no {FILE.as_posix()}")
    sys.path.insert(0, str(options.folder.resolve()))
    tests = importlib.import_module(".".join(FILE.with_suffix("").parts))
    theirs = results_of(tests, OF_TIMM, options.tests)
    print(f"timm's {OF_TIMM}: {counted(theirs)}", flush=True)
    worse = []
    for name in options.models:
        ours = results_of(tests, PREFIX + name, options.tests)
        for test, outcome in ours.items():
            print(f"{name:16} {test:60} ours {outcome}  timm's {theirs[test].partition(':')[0]}")
            if outcome.startswith("failed") and theirs[test] == "passed":
                worse.append((test, name))
        print(f"{name}: {counted(ours)}", flush=True)
    print("worse:", worse)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
