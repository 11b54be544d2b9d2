"""How kernels receive the state: one pointer, from which each array is read where it is used.

A tuple of thirty arrays costs a kernel's helper two kilobytes of arguments a call and minutes of compilation; a pointer
costs nothing. `t.imps` in a kernel is the array at its place in the frame (address, rows); outside kernels it is the
array itself.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import NativeValue, intrinsic, overload_attribute, register_model, typeof_impl, unbox
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from stream.engine.layout import FIELDS

_PLACES = {name: place for place, name in enumerate(FIELDS)}


class _Row:
    """One row of a structured array with its fields as attributes, as compiled kernels have it."""

    __slots__ = ("_row",)

    def __init__(self, row: Any) -> None:
        object.__setattr__(self, "_row", row)

    def __getattr__(self, field: str) -> Any:
        return self._row[field]

    def __setattr__(self, field: str, value: Any) -> None:
        self._row[field] = value


class _Rows:
    """A structured array for kernels run as plain Python. (A record array would do, were no field named `flags`.)"""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.shape = array.shape

    def __getitem__(self, row: Any) -> _Row:
        return _Row(self._array[row])

    def __setitem__(self, row: Any, value: _Row) -> None:
        self._array[row] = value._row


class Tables:
    """The arrays of layout.FIELDS as attributes; `address` is that of the frame kernels read."""

    def __init__(self) -> None:
        """Without arrays, until each has been put."""
        self._frame = np.zeros((len(FIELDS), 2), np.int64)
        self.address = self._frame.ctypes.data

    def put(self, name: str, array: npt.NDArray[Any]) -> None:
        """Let this array be the one of that name. It must be C-contiguous and stay where it is until replaced."""
        dtype, tail = FIELDS[name]
        if array.dtype != dtype or array.shape[1:] != tail or not array.flags.c_contiguous:
            raise TypeError(f"{name}: {array.dtype} {array.shape} is not {dtype} (rows, {tail})")
        setattr(self, name, _Rows(array) if config.DISABLE_JIT and dtype.names else array)
        self._frame[_PLACES[name]] = array.ctypes.data, len(array)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class TablesType(types.Type):
    """The type of Tables in kernels: an address."""

    def __init__(self) -> None:
        super().__init__(name="liftstream.Tables")


TABLES = TablesType()


@typeof_impl.register(Tables)
def _type_of(value, context):
    return TABLES


@register_model(TablesType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.IntType(64))


@unbox(TablesType)
def _unbox(kind, value, context):
    address = context.pyapi.object_getattr_string(value, "address")
    native = context.pyapi.long_as_longlong(address)
    context.pyapi.decref(address)
    return NativeValue(native)


def _add_field(place: int, name: str, dtype: np.dtype[Any], tail: tuple[int, ...]) -> None:
    array_type = types.Array(numpy_support.from_dtype(dtype), 1 + len(tail), "C")

    @intrinsic
    def view(context, tables):
        def build(context, builder, signature, args):
            word = ir.IntType(64)
            frame = builder.inttoptr(args[0], word.as_pointer())
            parts = []
            for k in (2 * place, 2 * place + 1):
                part = builder.load(builder.gep(frame, [ir.Constant(word, k)]))
                part.set_metadata("invariant.load", builder.module.add_metadata([]))
                parts.append(part)
            array = context.make_array(array_type)(context, builder)
            sizes = [dtype.itemsize]
            for n in reversed(tail):
                sizes.insert(0, sizes[0] * n)
            populate_array(
                array,
                data=builder.inttoptr(parts[0], array.data.type),
                shape=cgutils.pack_array(builder, [parts[1], *(ir.Constant(word, n) for n in tail)]),
                strides=cgutils.pack_array(builder, [ir.Constant(word, n) for n in sizes]),
                itemsize=ir.Constant(word, dtype.itemsize),
                meminfo=None,
            )
            return array._getvalue()

        return array_type(tables), build

    # With reference counts, although there is nothing to count: else numba lets no function return an array.
    @overload_attribute(TablesType, name, jit_options={"_nrt": True})
    def get(tables):
        def read(tables):
            return view(tables)

        return read


for _name, (_dtype, _tail) in FIELDS.items():
    _add_field(_PLACES[_name], _name, _dtype, _tail)
