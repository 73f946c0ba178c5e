# SPDX-License-Identifier: MIT
"""Subclasses that override all that RLlib lets a user override, count the calls, and do no more."""

import functools
import inspect

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


def overridable(kind):
    """RLlib's methods that a user may override: public ones, and those that RLlib marks as such."""
    names = {}
    for owner in kind.__mro__:
        if owner.__module__.startswith("ray.rllib."):
            for name, value in vars(owner).items():
                function = getattr(value, "__func__", value)
                if not inspect.isfunction(function):
                    continue
                is_marked = hasattr(function, "__is_overridden__") or name.startswith("_forward")
                if is_marked or not name.startswith("_"):
                    names[name] = True
    return frozenset(names)


def counting(base, names):
    """A subclass of `base`; its `called` has the methods that were called in this process.

    In an actor, where the class may be unpickled again, an object's `called_here` has its own.
    """
    called = set()

    def count(name):
        @functools.wraps(getattr(base, name))
        def method(self, *args, **kwargs):
            called.add(name)
            if not isinstance(self, AlgorithmConfig):  # All that one has is a setting.
                vars(self).setdefault("called_here", set()).add(name)
            return getattr(super(kind, self), name)(*args, **kwargs)

        return method

    def count_of_class(name):
        @functools.wraps(getattr(base, name))
        def method(cls, *args, **kwargs):
            called.add(name)
            return getattr(super(kind, cls), name)(*args, **kwargs)

        return classmethod(method)

    def count_of_static(name):
        @functools.wraps(getattr(base, name))
        def method(*args, **kwargs):
            called.add(name)
            return getattr(base, name)(*args, **kwargs)

        return staticmethod(method)

    kinds = {classmethod: count_of_class, staticmethod: count_of_static}
    members = {
        name: kinds.get(type(inspect.getattr_static(base, name)), count)(name) for name in names
    }
    kind = type(f"Counting{base.__name__}", (base,), members | {"called": called})
    return kind
