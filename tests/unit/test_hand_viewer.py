"""The page with hands to turn is one file, whole, and takes names as they are."""

import re

import hands
import pytest

from hybridvit.tasks.hand.drawn.viewer import ViewedHand, viewer_page


def test_the_page_holds_everything_and_loads_nothing() -> None:
    pytest.importorskip("plotly", reason="an extra: charts")
    from plotly.offline import get_plotlyjs

    viewed = [ViewedHand(name=name, mesh=hands.result().mesh) for name in ("<b>one", "two")]
    page = viewer_page(viewed, "Hands & co")
    head, script, rest = page.partition("<script>")[0], "Plotly.newPlot", page.rpartition("</script>")[2]
    assert "<title>Hands &amp; co</title>" in head
    assert script in page
    assert "</html>" in rest
    assert len(page) > 4_000_000
    assert "&lt;b&gt;one" in page
    assert "<b>one" not in page
    assert page.count('"type":"mesh3d"') == page.count('"type":"scatter3d"') == 2
    assert "generated hand, Apache-2.0" in page
    own = page.replace(get_plotlyjs(), "")
    assert len(own) < 300_000
    assert not re.findall(r'(?:src|href)="', own)
    assert "http" not in re.sub(r'"plotlyServerURL":\s*"[^"]*"', "", own)
    with pytest.raises(ValueError, match=r"no hands was asked for\. Give at least one"):
        viewer_page([], "Hands")
