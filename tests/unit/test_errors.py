"""What is quoted of another library's error."""

import pytest

from hybridvit.errors import LONGEST, first_line, one_line


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("It broke.\nHere is why.", "It broke", "It broke. Here is why"),
        ("red \x1b[31m and a bell \a", "red ?[31m and a bell ?", "red ?[31m and a bell ?"),
        ("", "ValueError", "ValueError"),
    ],
)
def test_it_is_one_line_that_steers_no_terminal(text: str, first: str, whole: str) -> None:
    assert (first_line(ValueError(text)), one_line(ValueError(text))) == (first, whole)


def test_it_is_not_longer_than_a_message_can_be() -> None:
    assert len(one_line(ValueError("x" * 10_000))) == LONGEST
