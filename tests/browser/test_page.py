"""The page of a real service, in a real browser: what people see, and what they can do."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import hand_over
from PIL import Image
from saved_models import randomised
from serving import serving

import hybridvit
from hybridvit.cli import main
from hybridvit.tasks.segment.result import palette_of

NAMES = ("<b>bold</b>", "<img src=x onerror=alert(1)>", "plain", "straße", "five")
PHONE, DESKTOP = (390, 844), (1280, 800)
OUTLINED = """[document.activeElement, document.activeElement.closest("label")]
    .some((it) => it && getComputedStyle(it).outlineStyle === "solid")"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models by the name that they are served by, and two pictures."""
    folder = tmp_path_factory.mktemp("page")
    classifiers = {name: randomised(hybridvit.create_model("fastvit_debug", num_classes=5), seed)
                   for seed, name in enumerate(("one", "other"))}  # fmt: skip
    head = {"pyramid_channels": 8, "channels": 8}
    segmenter = hybridvit.create_model("fastvit_debug", task="segment", head_options=head, num_classes=3)
    for name, model in (classifiers | {"places": randomised(segmenter)}).items():
        if name in classifiers:
            model.card = dataclasses.replace(model.card, class_names=NAMES)
        hybridvit.save_checkpoint(model.eval(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in (*classifiers, "places")}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, as far as a small model can tell."""
    path = tmp_path_factory.mktemp("pictures") / "a <i>photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).resize((280, 200)).save(path)
    return path


@pytest.fixture(scope="module")
def address(files: dict[str, Path]) -> Iterator[str]:
    """Of a service in a process of its own."""
    models = [f"{name}={path}" for name, path in files.items()]
    with serving(*models, "--max_batch", 1, "--device", "cpu") as process:
        yield process.url


@pytest.fixture
def opened(open_page: Callable, address: str) -> Callable:
    """Opens the page, and waits until it knows the models."""

    def opens(size: tuple[int, int] = DESKTOP, **options: Any) -> Any:
        page = open_page("about:blank", size, **options)
        page.goto(address)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    return opens


@pytest.fixture
def refused(open_page: Callable) -> Iterator[None]:
    """For tests in which the server answers with an error, which browsers tell on the console too."""
    yield
    assert open_page.errors
    assert all(text.startswith("Failed to load resource") for text in open_page.errors)
    open_page.errors.clear()


def panel(page: Any, state: str, place: int = 0) -> Any:
    """The model's panel, when it is in that state."""
    page.locator(".panel").nth(place).and_(page.locator(f"[data-state={state}]")).wait_for()
    return page.locator(".panel").nth(place)


def choose(page: Any, picture: Path) -> None:
    page.set_input_files("#file", picture)


def answer_of(panel: Any) -> dict[str, Any]:
    """What the page says that the server answered."""
    panel.get_by_text("Answer as JSON").click()
    panel.locator("pre:not(:empty)").wait_for()
    return json.loads(panel.locator("pre").inner_text())


def printed(model: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `hybridvit predict --json` prints."""
    assert main(["predict", str(model), str(picture), "--json", "--device", "cpu"]) == 0
    answer = json.loads(capsys.readouterr().out)
    del answer["image"]
    return answer


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_what_is_dropped_or_pasted_gets_the_answer_that_predict_prints(opened, files, picture, capsys, event):
    page = opened()
    hand_over(page, event, picture, at="zone")

    result = panel(page, "result")
    answer = printed(files["one"], picture, capsys)
    assert answer_of(result) == answer
    rows = [row.inner_text().split("\t") for row in result.locator("tbody tr").all()]
    assert [" ".join(row).split() for row in rows] == [
        [*row["class"].split(), *f"{100 * row['probability']:.2f} %".split()] for row in answer["predictions"]
    ]
    assert page.title() == "one · hybridvit"


def test_names_of_files_and_classes_are_text_and_never_markup(opened, picture):
    page = opened()
    choose(page, picture)
    result = panel(page, "result")

    assert set(result.locator("tbody .class").all_inner_texts()) == set(NAMES)
    assert result.locator("b, img").count() == 0
    assert page.locator("#photo").get_attribute("alt") == picture.name
    assert page.locator("#hint").inner_text() == picture.name


def test_an_empty_page_says_what_to_do(opened):
    page = opened()

    assert page.locator("#zone").inner_text().split("\n")[0] == "Choose a picture"
    assert panel(page, "empty").locator(".placeholder").is_visible()
    assert page.locator("#model option").all_inner_texts() == ["one", "other", "places"]
    assert "fastvit_debug · torch · fp32" in page.locator(".facts").first.inner_text()


def test_a_file_that_is_slow_to_read_is_said_to_be_read_and_a_newer_one_replaces_it(opened, picture):
    page = opened()
    page.evaluate("() => { window.kept = File.prototype.arrayBuffer; }")
    page.evaluate("() => { File.prototype.arrayBuffer = () => new Promise(() => {}); }")
    choose(page, picture)

    zone = page.locator("#zone[aria-busy=true]")
    zone.wait_for()
    assert zone.get_attribute("data-state") == "reading"
    assert picture.name in zone.inner_text()
    page.evaluate("() => { File.prototype.arrayBuffer = window.kept; }")
    choose(page, picture)
    panel(page, "result")
    assert page.locator("#zone").get_attribute("aria-busy") == "false"


def test_a_file_that_is_gone_is_said_to_be_unreadable(opened, picture):
    page = opened()
    page.evaluate("() => { File.prototype.arrayBuffer = () => Promise.reject(new DOMException('', 'NotFoundError')); }")
    choose(page, picture)

    trouble = page.locator("#trouble:focus")
    trouble.wait_for()
    assert f"{picture.name} could not be read" in trouble.inner_text()


def test_while_it_waits_a_page_is_busy_and_shows_so_after_a_moment(opened, picture):
    page = opened()
    page.route("**/predict*", lambda route: None)  # never answered
    choose(page, picture)

    from playwright.sync_api import expect

    waiting = panel(page, "waiting").locator(".waiting")
    assert page.locator(".panel").first.get_attribute("aria-busy") == "true"
    assert waiting.evaluate("(it) => getComputedStyle(it).animationDelay") == "0.2s"
    expect(waiting).to_have_css("opacity", "1")
    assert page.locator("#status").inner_text().startswith("Waiting for the answer")


def test_a_newer_picture_gives_the_older_request_up(opened, picture, tmp_path):
    page = opened()
    given_up = []
    page.on("requestfailed", lambda request: given_up.append(request.failure))
    page.route("**/predict*", lambda route: None, times=1)
    choose(page, picture)
    panel(page, "waiting")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    choose(page, tmp_path / "red.png")

    panel(page, "result")
    assert given_up == ["net::ERR_ABORTED"]
    assert page.locator("#hint").inner_text() == "red.png"


def test_what_the_server_refuses_is_said_in_its_words_where_the_focus_goes(opened, refused, tmp_path):
    page = opened()
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    choose(page, tmp_path / "notes.txt")

    message = panel(page, "refused").locator(".message:focus")
    message.wait_for()
    assert "no image" in message.inner_text()
    assert message.get_by_role("button").count() == 0  # the same file would be refused again
    assert "cannot show the file" in page.locator("#note").inner_text()


def refusing(code: str) -> Callable[[Any], None]:
    """What a server does that answers with that code."""
    body = {"error": code, "message": f"The server is {code}.", "request_id": "r"}
    return lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, json=body)


def test_a_busy_server_is_asked_once_more_after_the_time_it_names(opened, refused, picture):
    page = opened()
    page.route("**/predict*", refusing("overloaded"), times=1)
    choose(page, picture)

    assert "asked again in 1 s" in panel(page, "overloaded").locator(".waiting").inner_text()
    panel(page, "result")


@pytest.mark.parametrize(("code", "times"), [("overloaded", 2), ("stopping", 1)])
def test_a_server_that_stays_busy_or_stops_is_asked_again_by_a_button(opened, refused, picture, code, times):
    page = opened()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "predict" in request.url else None)
    page.route("**/predict*", refusing(code))
    choose(page, picture)

    message = panel(page, code).locator(".message:focus")
    message.wait_for()
    assert message.inner_text().startswith(f"The server is {code}.")
    assert len(asked) == times
    page.unroute("**/predict*")
    message.get_by_role("button", name="Try again").click()
    panel(page, "result")


def test_a_server_that_is_gone_is_said_so_and_can_be_asked_again(opened, refused, picture):
    page = opened()
    page.route("**/predict*", lambda route: route.abort("connectionrefused"))
    choose(page, picture)

    message = panel(page, "gone").locator(".message:focus")
    message.wait_for()
    assert "cannot be reached" in message.inner_text()
    page.unroute("**/predict*")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    panel(page, "result")


def test_a_page_whose_models_cannot_be_listed_can_be_asked_again(open_page, address, refused):
    page = open_page("about:blank")
    page.route("**/models", lambda route: route.abort("connectionrefused"))
    page.goto(address)

    page.locator("#trouble:focus").wait_for()
    page.unroute("**/models")
    page.locator("#trouble button").click()
    page.locator("#model option").first.wait_for(state="attached")
    assert page.locator("#trouble").is_hidden()


def test_only_a_file_of_more_than_10_mb_is_sent_smaller_and_that_is_said(opened, tmp_path):
    page = opened()
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 2800, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=0)
    with page.expect_response("**/predict*") as answered:
        choose(page, tmp_path / "large.png")

    panel(page, "result")
    assert answered.value.json()["size"] == [2048, 878]
    assert answered.value.request.sizes()["requestBodySize"] < 2e6
    assert "10.1 MB, more than the 10 MB" in page.locator("#note").inner_text()
    assert "2048×878" in page.locator("#note").inner_text()


def test_two_models_answer_side_by_side_and_are_compared(opened, files, picture, capsys):
    page = opened()
    page.select_option("#other", "other")
    choose(page, picture)

    first, second = (printed(files[name], picture, capsys)["predictions"] for name in ("one", "other"))
    other = {row["class"]: row["probability"] for row in second}
    apart = max(abs(row["probability"] - other[row["class"]]) for row in first)
    verdict = page.locator("#verdict:visible")
    verdict.wait_for()
    assert f"Largest difference of probabilities: {apart:.6f} (" in verdict.inner_text()
    assert verdict.inner_text().startswith("Same" if first[0]["class"] == second[0]["class"] else "Answers differ")
    boxes = [panel(page, "result", place).bounding_box() for place in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]

    page.select_option("#other", "")
    assert page.locator(".panel").count() == 1
    assert verdict.count() == 0


def test_the_same_answer_of_two_models_is_said_to_be_the_same(opened, files, picture, capsys):
    page = opened()
    page.route("**/predict?model=other", lambda route: route.continue_(url=route.request.url.replace("other", "one")))
    page.select_option("#other", "other")
    choose(page, picture)

    verdict = page.locator("#verdict[data-same=true]:visible")
    verdict.wait_for()
    first = printed(files["one"], picture, capsys)["predictions"][0]["class"]
    assert verdict.inner_text() == f"Same answer. Largest difference of probabilities: 0.000000 ({first})."


def test_an_answer_that_lies_in_the_picture_is_seen_on_it(opened, files, picture, capsys):
    page = opened()
    page.select_option("#model", "places")
    choose(page, picture)

    result = panel(page, "result")
    drawn = result.locator("figure img")
    drawn.wait_for()
    assert drawn.evaluate("async (it) => (await it.decode(), [it.naturalWidth, it.naturalHeight])") == [280, 200]
    assert "places" in drawn.get_attribute("alt")
    answer = printed(files["places"], picture, capsys)
    assert answer_of(result) == answer
    assert result.locator("tbody .class").all_inner_texts() == [row["class"] for row in answer["classes"]]
    shown = hybridvit.load(files["places"]).card
    wanted = ["rgb({}, {}, {})".format(*palette_of(shown)[row["index"]]) for row in answer["classes"]]
    patches = result.locator("tbody .colour")
    assert patches.evaluate_all("them => them.map((it) => getComputedStyle(it).backgroundColor)") == wanted


def test_an_overlay_is_offered_where_the_model_has_one_and_shown_when_asked_for(opened, picture):
    page = opened()
    choose(page, picture)

    button = panel(page, "result").get_by_role("button", name="What speaks for it")
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator("figure").is_hidden()
    button.click()
    page.locator("figure img").wait_for()
    assert page.locator("figure img").evaluate("async (it) => (await it.decode(), it.naturalWidth)") > 0
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert page.locator("figure").is_hidden()
    page.select_option("#model", "places")
    panel(page, "result").locator("figure img").wait_for()
    assert page.locator(".views").is_hidden()


@pytest.mark.parametrize("name", ["digit", "shapes", "hand"])
def test_the_keyboard_alone_suffices(opened, name):
    page = opened()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.id || document.activeElement.dataset.file || ''")
        reached.append(place)
        assert page.evaluate(OUTLINED), place
        if place.startswith(f"example-{name}."):
            break
    assert [place for place in reached if place in ("model", "other", "file")] == ["model", "other", "file"]
    page.keyboard.press("Enter")
    panel(page, "result")
    page.locator("#model").focus()
    page.keyboard.press("ArrowDown")
    page.locator("h2", has_text="other").wait_for()
    panel(page, "result")


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_everything_fits_and_can_be_hit(opened, picture, size):
    is_phone = size == PHONE
    page = opened(size, has_touch=is_phone, is_mobile=is_phone)
    page.select_option("#other", "other")
    choose(page, picture)
    page.locator("#verdict:visible").wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, a, label.zone, label.button")]
            .filter((it) => it.checkVisibility())
            .filter((it) => it.getBoundingClientRect().height < 44 || it.getBoundingClientRect().width < 44)
            .map((it) => it.outerHTML)"""
    )
    assert small == []
    assert page.locator("#take").is_visible() == is_phone
    assert page.locator("#camera").get_attribute("capture") == "environment"
    ask, answers = (page.locator(part).bounding_box() for part in (".ask", ".answers"))
    assert (ask["y"] + ask["height"] <= answers["y"]) == is_phone


def test_dark_and_quiet_are_as_the_person_has_set_them(opened, picture):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened(dark=True, reduced_motion="reduce")
    dark.route("**/predict*", lambda route: None)
    choose(dark, picture)
    panel(dark, "waiting")

    assert dark.evaluate(ground) != opened().evaluate(ground)
    assert dark.evaluate("getComputedStyle(document.querySelector('.spinner')).animationName") == "none"
