# SPDX-License-Identifier: MIT
"""Items of any dtype between a ring of slots and arrays, as bytes, without the GIL."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset


cdef int _check(Py_buffer* ring, Py_buffer* array, const int64_t[::1] slots) except -1:
    """Every slot must lie in the ring, and the array hold one item per slot."""
    cdef Py_ssize_t i, capacity = ring.shape[0]
    if array.len * capacity != ring.len * slots.shape[0]:
        raise ValueError(
            f"the array must hold {slots.shape[0]} items of {ring.len // capacity} bytes: "
            f"it holds {array.len} bytes"
        )
    for i in range(slots.shape[0]):
        if not -1 <= slots[i] < capacity:
            raise IndexError(f"slot {slots[i]} is outside of a ring of {capacity}")
    return 0


def take(ring, const int64_t[::1] slots not None, out, Py_ssize_t start=0, Py_ssize_t stop=-1):
    """out[i] = ring[slots[i]] for start <= i < stop (-1: all); slot -1 gives zeros.

    Threads may fill different parts of one `out`.
    """
    cdef Py_buffer source, target
    cdef Py_ssize_t i, size
    cdef char* to
    PyObject_GetBuffer(ring, &source, PyBUF_C_CONTIGUOUS)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            _check(&source, &target, slots)
            size = source.len // source.shape[0]
            if stop < 0:
                stop = slots.shape[0]
            if not 0 <= start <= stop <= slots.shape[0]:
                raise IndexError(f"{start}:{stop} is outside of {slots.shape[0]} items")
            with nogil:
                to = <char*>target.buf + start * size
                for i in range(start, stop):
                    if slots[i] < 0:
                        memset(to, 0, size)
                    else:
                        memcpy(to, <char*>source.buf + slots[i] * size, size)
                    to += size
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)


def put(ring, const int64_t[::1] slots not None, values):
    """ring[slots[i]] = values[i], in this order; slot -1 is left out."""
    cdef Py_buffer target, source
    cdef Py_ssize_t i, size
    PyObject_GetBuffer(ring, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    try:
        PyObject_GetBuffer(values, &source, PyBUF_C_CONTIGUOUS)
        try:
            _check(&target, &source, slots)
            size = target.len // target.shape[0]
            with nogil:
                for i in range(slots.shape[0]):
                    if slots[i] >= 0:
                        memcpy(
                            <char*>target.buf + slots[i] * size,
                            <char*>source.buf + i * size,
                            size,
                        )
        finally:
            PyBuffer_Release(&source)
    finally:
        PyBuffer_Release(&target)
