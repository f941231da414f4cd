"""timm's own tests of its models over ours, beside those over timm's models of the same names.

    python tests/peers/timm_tests.py FOLDER [--models NAME ...] [--tests PATTERN]

FOLDER is the source distribution of the timm that is installed, unpacked:
`pip download --no-deps --no-binary :all: timm==VERSION`. Its tests stay there. The result is a table, and 1 as the exit
code if ours fails where timm's passes; where timm has no model of the name, if ours fails at all. Scripting is refused
with a reason, which is listed and no failure.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import pytest
import timm

import hybridvit

PREFIX = "hybridvit_"
REFUSED = "torch.jit.script cannot read"
Results = dict[tuple[str, str], str]  # by the test without its model, and the model: passed, failed, refused, skipped


class OverChosenModels:
    """A plugin of pytest that lists `names` alone to the tests, runs what is made for them, and keeps the results."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.results: Results = {}

    def list_models(self, filter: str = "", module: object = "", **options: object) -> list[str]:
        """`timm.list_models`, whose choice by timm's modules leaves ours in."""
        return [name for name in _list_models(filter, **options) if name.partition(".")[0] in self.names]

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items[:] = [item for item in items if self._model_of(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function):  # type: ignore[no-untyped-def]
        report = yield
        if report.when == "call" or report.outcome != "passed":
            model = self._model_of(item)
            refused = report.failed and REFUSED in report.longreprtext
            key = item.name.replace(model, "MODEL"), model.removeprefix(PREFIX)
            self.results[key] = "refused" if refused else report.outcome
        return report

    def _model_of(self, item: pytest.Function) -> str:
        name = str(item.callspec.params.get("model_name", "")) if hasattr(item, "callspec") else ""
        return name if name.partition(".")[0] in self.names else ""


_list_models = timm.list_models


def results_of(folder: Path, names: list[str], pattern: str) -> Results:
    """Run the tests over `names`; what came out."""
    plugin = OverChosenModels(names)
    timm.list_models = plugin.list_models
    for module in [module for module in sys.modules if module == "tests" or module.startswith("tests.")]:
        del sys.modules[module]  # or the names of the run before would stay
    file = folder / "tests" / "test_models.py"
    words = [str(file), "-q", "-p", "no:cacheprovider", "--tb=short", "-n", "0", *(("-k", pattern) if pattern else ())]
    pytest.main(words, plugins=[plugin])
    return plugin.results


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="timm's tests over our models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["fastvit_t8", "fastvit_sa12", "fastervit_0", "swin_tiny_hat"])
    parser.add_argument("--tests", default="", help="as pytest's -k")
    options = parser.parse_args()
    unknown = set(options.models) - set(hybridvit.list_models())
    if unknown or not (options.folder / "tests" / "test_models.py").is_file():
        parser.error(f"no such models: {sorted(unknown)}" if unknown else "the folder has no tests/test_models.py")
    theirs_too = [name for name in options.models if name in _list_models()]
    ours = results_of(options.folder, [PREFIX + name for name in options.models], options.tests)
    theirs = results_of(options.folder, theirs_too, options.tests)
    worse = []
    for (test, model), outcome in sorted(ours.items()):
        of_timm = next((value for (name, of), value in theirs.items() if (name, of) == (test, model)), "-")
        print(f"{model:16} {test:60} ours {outcome:8} timm's {of_timm}")
        if outcome == "failed" and of_timm in ("passed", "-"):
            worse.append((test, model))
    print("ours:", dict(Counter(ours.values())), " timm's:", dict(Counter(theirs.values())), " worse:", worse)
    return 1 if worse or not ours else 0


if __name__ == "__main__":
    sys.exit(main())
