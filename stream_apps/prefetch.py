"""Asking the processor for memory before it is needed."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def prefetch(typingctx, array, row):
    """Ask for the cache line at the start of a row; no more than a hint, so it cannot change a result."""

    def codegen(context, builder, signature, args):
        held = context.make_array(signature.args[0])(context, builder, args[0])
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        base = builder.ptrtoint(held.data, ir.IntType(64))
        place = builder.add(base, builder.mul(at, builder.extract_value(held.strides, 0)))
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(hint, [builder.inttoptr(place, byte), number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, row), codegen
