# SPDX-License-Identifier: MIT
from libc.stdint cimport int64_t, uint8_t

cdef extern from "_kernels.h":
    enum:
        GROUP  # doubles in a group of inner nodes

cdef enum:
    MAX_LEVELS = 64  # of a tree of fan-out 2 and 2^63 leaves


cdef class SumTree:
    cdef readonly Py_ssize_t capacity       # leaves
    cdef readonly Py_ssize_t nbytes         # allocated by this tree, bookkeeping included
    cdef readonly int64_t num_repaired      # parents recomputed so far, the root included
    cdef void *memory                       # the one allocation that all pointers below lie in
    cdef double *leaves
    cdef int top                            # the highest level; 0 are the leaves, the root is above
    cdef int64_t size[MAX_LEVELS]           # nodes of a level
    cdef double *groups[MAX_LEVELS]         # inner nodes of a level, in groups; see _kernels.h
    cdef uint8_t *dirty[MAX_LEVELS]         # one bit per inner node: it waits for its repair
    cdef double root[GROUP]                 # a group of which the root is the first
    cdef int64_t *pending                   # nodes of level 1 to recompute, each once
    cdef int64_t num_pending
    cdef bint stale                         # a leaf was written since the last repair

    cdef int _allocate(self) except -1
    cdef Py_ssize_t _lay_out(self, char *start, bint aligned) noexcept
    cdef Py_ssize_t _leaf(self, index) except -1
    cdef Py_ssize_t _first_refused(
        self, const int64_t *indices, const double *values, Py_ssize_t count
    ) noexcept nogil
    cdef int _refuse(self, int64_t index, double value, Py_ssize_t position) except -1
    cdef int _refuse_to_draw(self) except -1
    cdef inline void _write(self, int64_t index, double value) noexcept nogil
    cdef void _repair(self) noexcept nogil
    cdef void _recompute(
        self, int level, double *groups, const int64_t *nodes, int64_t count
    ) noexcept nogil
    cdef int64_t _parents(self, int level, int64_t *nodes, int64_t count) noexcept nogil
    cdef object _find_and_read(self, double *targets, Py_ssize_t count)
    cdef void _descend(self, int64_t *nodes, double *targets, int64_t count) noexcept nogil
    cdef void _include(
        self, int level, int64_t node, double *total, double *smallest, double *largest
    ) noexcept
