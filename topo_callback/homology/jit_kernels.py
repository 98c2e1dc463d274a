# mypy: disable-error-code="no-untyped-def"
"""The one way in which this package compiles a kernel with numba."""

import inspect

from numba import njit


def kernel(function):
    """Compile `function` with numba: without the global interpreter lock, kept on disk where that is possible.

    numba refuses to decorate a function for which it finds no writable cache directory (a read-only installation with
    a read-only home); such a kernel is compiled anew in every process instead.
    """
    # a hook that checks shapes at run time wraps every function of the package, and numba cannot compile its wrapper
    function = inspect.unwrap(function)
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError as error:
        if "cache" not in str(error):
            raise
        return njit(nogil=True)(function)
