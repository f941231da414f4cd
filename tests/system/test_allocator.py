"""Memory that PyTorch frees stays with the process: the system does not clear its pages anew for each operation."""

import platform

import pytest
from fresh import output_of


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these thresholds")
def test_a_forward_pass_has_no_page_faults_where_freed_memory_is_kept() -> None:
    before, after = map(int, output_of("page_faults").split())
    assert before > 1000  # the reason to ask for it
    assert after < 20
