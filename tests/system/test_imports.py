"""Importing loads nothing that is not needed: seconds for everyone who asks for --help."""

import pytest
from fresh import output_of

import hybridvit
from hybridvit.models.registry import FAMILIES, VARIANTS

LIGHT = {  # what is imported, and what must not come with it
    "the package": ("hybridvit", "torch,timm,numpy"),
    "settings and preprocessing": (
        "hybridvit.data.augment_config,hybridvit.data.preprocess,hybridvit.data.decode,hybridvit.data.scan",
        "torch,timm",
    ),
    "pages of answers": ("hybridvit.report.html,hybridvit.tasks.hand.together", "torch,timm"),
    "peers": ("hybridvit.peers,hybridvit.peers.papers", "torch,timm"),
    "charts, before one is drawn": ("hybridvit.charts.tradeoff", "plotly,matplotlib,timm"),
}


@pytest.mark.parametrize("what", LIGHT)
def test_importing_loads_nothing_heavy(what: str) -> None:
    assert output_of("loaded", *LIGHT[what]) == ""


def test_reading_a_recipe_imports_no_torch() -> None:
    assert output_of("read_a_recipe", "digits") == "False"


@pytest.mark.parametrize("order", ["hybridvit,timm", pytest.param("timm,hybridvit", marks=pytest.mark.nightly)])
def test_the_order_of_imports_does_not_matter(order: str) -> None:
    assert output_of("names_in_timm", order) == str(len(hybridvit.list_models()))


def test_models_need_neither_timm_nor_lightning() -> None:
    names = ("fastvit_debug", "fastervit_debug")
    lines = output_of("built_without", "timm,lightning_fabric", ",".join(names)).splitlines()
    assert lines == [f"{name} () True" for name in names]  # all of it folds, and a model made of timm's parts is known


def test_only_the_family_that_is_built_is_imported() -> None:
    homes = {family: row.model.partition(":")[0] for family, row in FAMILIES.items()}
    before, after = output_of("families", "fastvit_debug", *homes.values()).splitlines()
    assert (before, after) == ("", homes["fastvit"])
    assert {variant.family for variant in VARIANTS.values()} == set(FAMILIES)
