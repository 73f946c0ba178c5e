# SPDX-License-Identifier: MIT
from tests.called.tables import PAGE, written


def test_the_tables_of_the_page_are_the_verdicts_that_tests_run():
    """`python -m tests.called.tables` writes them anew."""
    page = PAGE.read_text("utf-8")
    assert written(page) == page
