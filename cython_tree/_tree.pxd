# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t, uint8_t

cdef enum:
    MAX_LEVELS = 63  # of a tree of fan-out 2 and 2^63 leaves


cdef class SumTree:
    cdef readonly Py_ssize_t capacity       # leaves
    cdef readonly Py_ssize_t nbytes         # allocated by this tree, bookkeeping included
    cdef readonly int64_t num_repaired      # parents recomputed so far, the root included
    cdef void *memory                       # the one allocation that all pointers below lie in
    cdef int top                            # the highest level; its parent is the root below
    cdef int64_t size[MAX_LEVELS]           # nodes of a level; level 0 are the leaves
    cdef double *sums[MAX_LEVELS]           # per level, one node per group of the level below
    cdef double *mins[MAX_LEVELS]           # smallest positive leaf below, or inf; NULL at level 0
    cdef double *maxs[MAX_LEVELS]           # NULL at level 0
    cdef uint8_t *dirty[MAX_LEVELS]         # one bit per node: it is in `pending`; NULL at level 0
    cdef int64_t *pending                   # nodes of level 1 to recompute, each once
    cdef int64_t num_pending
    cdef bint stale                         # a leaf was written since the last repair
    cdef double root_sum, root_min, root_max

    cdef int _allocate(self) except -1
    cdef Py_ssize_t _lay_out(self, char *start, bint aligned) noexcept
    cdef Py_ssize_t _leaf(self, index) except -1
    cdef Py_ssize_t _first_refused(
        self, const int64_t *indices, const double *values, Py_ssize_t count
    ) noexcept nogil
    cdef int _refuse(self, int64_t index, double value, Py_ssize_t position) except -1
    cdef int _refuse_to_draw(self) except -1
    cdef void _write(self, int64_t index, double value) noexcept nogil
    cdef void _repair(self) noexcept nogil
    cdef void _recompute(
        self, int level, double *sums, double *mins, double *maxs, const int64_t *nodes,
        int64_t count,
    ) noexcept nogil
    cdef int64_t _parents(self, int level, int64_t *nodes, int64_t count) noexcept nogil
    cdef object _find_and_read(self, double *targets, Py_ssize_t count)
    cdef void _descend(self, int64_t *nodes, double *targets, int64_t count) noexcept nogil
    cdef void _include(
        self, int level, int64_t node, double *total, double *smallest, double *largest
    ) noexcept
