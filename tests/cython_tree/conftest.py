# SPDX-License-Identifier: MIT
"""One contract, two implementations: the naive specification and the compiled tree."""

import pytest

import cython_tree
from cython_tree import reference

IMPLEMENTATIONS = [
    pytest.param(reference, id="reference"),
    pytest.param(cython_tree, id="compiled"),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


@pytest.fixture
def tree_class(implementation):
    return implementation.SumTree
