"""What a converter says is kept back, its errors are not, and afterwards everything is heard again."""

import logging
import os
import sys
import threading
import warnings

import pytest

from hybridvit.export.quiet import quiet, quiet_native


def speak() -> None:
    print("printed")
    print("to stderr", file=sys.stderr)
    os.write(2, b"to the descriptor\n")
    logging.getLogger("converter").warning("logged")
    logging.warning("logged at the root")
    warnings.warn("warned", stacklevel=1)


def test_nothing_is_said_inside_and_all_of_it_afterwards(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet(), quiet_native(), quiet(), quiet_native():
        speak()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    with pytest.warns(UserWarning, match="warned"):
        speak()
    told = capfd.readouterr()
    assert (told.out, told.err) == ("printed\n", "to stderr\nto the descriptor\n")
    assert [record.message for record in caplog.records] == ["logged", "logged at the root"]


def test_errors_come_through_and_leave_nothing_closed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with quiet(), quiet_native():
            logging.getLogger("converter").error("logged")
            raise ValueError("an error")

    with pytest.raises(ValueError, match="an error"):
        fail()
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
    assert [record.message for record in caplog.records] == ["logged"]


def test_threads_do_not_put_back_each_others_ends(capfd: pytest.CaptureFixture[str]) -> None:
    def convert() -> None:
        for _ in range(200):
            with quiet(), quiet_native():
                os.write(2, b"said")

    before, level = (sys.stdout, sys.stderr), logging.root.manager.disable
    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr, logging.root.manager.disable) == (*before, level)
    assert capfd.readouterr() == ("", "")
