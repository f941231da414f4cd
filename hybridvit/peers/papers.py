"""The papers' tables by name, and the models that stand in them."""

from hybridvit.errors import UsageError, nearest
from hybridvit.peers import fastervit_paper, fastvit_paper
from hybridvit.peers.paper_row import PaperTable

TABLES: dict[str, PaperTable] = {
    table.name: table
    for table in (
        fastvit_paper.ARCHITECTURES,
        fastvit_paper.COMPARISON,
        fastvit_paper.DISTILLED,
        fastervit_paper.ON_1K,
        fastervit_paper.ON_21K,
    )
}


def find_tables(names: list[str] | None) -> list[PaperTable]:
    """The tables of these names, all by default. Raises UsageError for an unknown one, with the nearest."""
    if names == []:
        raise UsageError(f"No table is named, but at least one must be. Tables: {', '.join(TABLES)}.")
    for name in names or ():
        if name not in TABLES:
            raise UsageError(f"There is no table '{name}'. Nearest: {nearest(name, TABLES)}.")
    return [TABLES[name] for name in names or TABLES]


def models_by_size(tables: list[PaperTable]) -> dict[int, list[str]]:
    """What there is to measure, without repetition: the names by side in pixels. Tables of architectures need none."""
    found: dict[int, dict[str, None]] = {}
    for table in tables:
        for row in table.rows:
            if row.model is not None:
                found.setdefault(row.image_size_px, {})[row.model] = None
    return {side: list(models) for side, models in sorted(found.items())}
