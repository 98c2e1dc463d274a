# mypy: disable-error-code="no-untyped-def,import-untyped"
"""Bit operations that numba has no name for."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def trailing_zeros(context, word):
    """The index of the lowest bit set in an unsigned 64-bit word other than 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def leading_zeros(context, word):
    """How many bits lie above the highest bit set in an unsigned 64-bit word other than 0."""

    def generate(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate
