"""What every room stands on: types, errors, safe arithmetic, trees as vectors, batches, a number and error. Private."""

from ._arrays import PART, STORED, is_key, named_arrays, read_arrays, with_arrays, write_arrays, write_whole
from ._batches import permute, rows_of, take
from ._checks import (
    check_callable,
    check_count,
    check_finite,
    check_floats,
    check_instance,
    check_key,
    check_like,
    check_loss,
    check_loss_and_aux,
    check_optimizer,
    check_pair,
    check_rate,
    check_rows,
    check_shape,
    check_shape_of_one,
    described,
    known_finite,
    shaped_like,
)
from ._convolutions import canonical_convolutions
from ._draws import normal, unrolled
from ._errors import fault, require
from ._estimate import Estimate, ratio_of_means, root_mean_square, scaled_estimate
from ._extra_arguments import ExtraArguments, required
from ._field import checked_field, checked_loss
from ._findings import LEVELS, Finding, Level, gravest_first
from ._forward import forward, push_forward
from ._guarded_jit import guarded_jit
from ._keyed import keyed
from ._numbers import check_labels, check_number
from ._numerics import divide, exact, nonzero, norm, peak, scaled, tree_norm, unit_vector, wide_dtype
from ._ravel import Product, Space, flat_product, space, split, tangent_of
from ._record import AbstractRecord
from ._rules import RULES, Moves, OptimizerProbe, register_rule
from ._table import table
from ._types import Field, Key
from ._update_rule import TOLERANCE, UpdateRule, given_rule, largest, unknown_rule, verified

__all__ = [
    "LEVELS",
    "PART",
    "RULES",
    "STORED",
    "TOLERANCE",
    "AbstractRecord",
    "Estimate",
    "ExtraArguments",
    "Field",
    "Finding",
    "Key",
    "Level",
    "Moves",
    "OptimizerProbe",
    "Product",
    "Space",
    "UpdateRule",
    "canonical_convolutions",
    "check_callable",
    "check_count",
    "check_finite",
    "check_floats",
    "check_instance",
    "check_key",
    "check_labels",
    "check_like",
    "check_loss",
    "check_loss_and_aux",
    "check_number",
    "check_optimizer",
    "check_pair",
    "check_rate",
    "check_rows",
    "check_shape",
    "check_shape_of_one",
    "checked_field",
    "checked_loss",
    "described",
    "divide",
    "exact",
    "fault",
    "flat_product",
    "forward",
    "given_rule",
    "gravest_first",
    "guarded_jit",
    "is_key",
    "keyed",
    "known_finite",
    "largest",
    "named_arrays",
    "nonzero",
    "norm",
    "normal",
    "peak",
    "permute",
    "push_forward",
    "ratio_of_means",
    "read_arrays",
    "register_rule",
    "require",
    "required",
    "root_mean_square",
    "rows_of",
    "scaled",
    "scaled_estimate",
    "shaped_like",
    "space",
    "split",
    "table",
    "take",
    "tangent_of",
    "tree_norm",
    "unit_vector",
    "unknown_rule",
    "unrolled",
    "verified",
    "wide_dtype",
    "with_arrays",
    "write_arrays",
    "write_whole",
]
