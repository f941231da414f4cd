"""Parts of a test that a machine may lack, and that continuous integration must have: HYBRIDVIT_REQUIRE names these."""

import os
from typing import NoReturn

import pytest


def missing(part: str, fix: str) -> NoReturn:
    """Skip the test for want of a part ("browser", "node", "ray", ...), or fail it where that part is required.

    `fix` says how to have it. So a run that requires the parts can never pass by skipping.
    """
    message = f"There is no {part} on this machine: {fix}."
    if part in os.environ.get("HYBRIDVIT_REQUIRE", "").split(","):
        pytest.fail(message + f" HYBRIDVIT_REQUIRE has '{part}'.")
    pytest.skip(message)
