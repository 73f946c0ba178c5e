# SPDX-License-Identifier: MIT
"""The compiled modules and their Cython directives; all else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# CYTHON_TREE_DEBUG=1 turns on bounds and initialisation checks and C's assert (`make debug`).
DEBUG = os.environ.get("CYTHON_TREE_DEBUG") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "freethreading_compatible": False,
}

# No fused multiply-adds: every machine rounds, and so draws, alike. Nobody asks for floating-point
# exceptions, and loops with a choice in them only vectorize without.
ARITHMETIC = ["-ffp-contract=off", "-fno-trapping-math"]

SOURCES = sorted([*Path("cython_tree").glob("*.pyx"), *Path("rllib_per").glob("**/*.pyx")])

setup(
    ext_modules=cythonize(
        [
            Extension(
                ".".join(source.with_suffix("").parts),
                [str(source)],
                include_dirs=[str(source.parent)],
                depends=[str(header) for header in source.parent.glob("*.h")],
                extra_compile_args=[*ARITHMETIC, *(["-O1", "-g"] if DEBUG else ["-O3"])],
                undef_macros=["NDEBUG"] if DEBUG else [],
            )
            for source in SOURCES
        ],
        compiler_directives=DIRECTIVES,
        # Apart, so that neither build takes the other's C for its own.
        build_dir="build/cython-debug" if DEBUG else "build/cython",
    )
)
