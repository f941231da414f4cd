"""The drawings as files: a PNG and an .npz each, and one page that holds all and needs nothing else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hybridvit.atomic import replacing, write_text
from hybridvit.explain.drawing import Drawing
from hybridvit.report.html import page_template
from hybridvit.report.pictures import data_address, png


def write_drawings(sections: Mapping[str, Sequence[Drawing]], folder: Path, *, lead: str, command: str) -> list[Path]:
    """Write all to `folder`: index.html, and for each drawing NAME.png and NAME.npz. The page is written last.

    `sections` has the drawings by their heading. Raises DiskFull.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, shown = [], []
    for place, (heading, drawings) in enumerate(sections.items()):
        rows = []
        for drawing in drawings:
            stem = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{place}-{drawing.name}")
            encoded = png(drawing.picture)
            with replacing(folder / f"{stem}.png") as temporary:
                temporary.write_bytes(encoded)
            with replacing(folder / f"{stem}.npz") as temporary:
                np.savez_compressed(temporary, allow_pickle=False, **drawing.numbers)
            written += [folder / f"{stem}.png", folder / f"{stem}.npz"]
            rows.append({"title": drawing.title, "caption": drawing.caption, "address": data_address(encoded)})
        shown.append((heading, rows))
    template, style = page_template("hybridvit.explain", "page.html.jinja")
    page = folder / "index.html"
    write_text(page, template.render(title="Explanation", lead=lead, sections=shown, command=command, style=style))
    return [page, *written]
