"""The browser that the other tests here use is there and shows pages."""


def test_a_page_is_shown_at_the_size_of_a_phone(open_page):
    page = open_page("data:text/html,<title>seen</title>", (390, 844))

    assert page.title() == "seen"
    assert page.evaluate("[innerWidth, innerHeight]") == [390, 844]
