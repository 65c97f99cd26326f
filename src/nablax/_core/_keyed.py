"""Calls with a key, of functions that may or may not ask for one."""

import inspect
from collections.abc import Callable
from typing import Any

from ._errors import fault
from ._types import Key


def keyed(function: Callable[..., Any], *args: Any, key: Key | None, what: str) -> Any:
    """Call a function with the key where it has an argument ``key``, else without.

    Raises:
        ValueError: it needs one and there is none.
    """
    found = _key_argument(function)
    if found is None:
        return function(*args)
    if key is not None:
        return function(*args, key=key)
    if found.default is found.empty:
        raise fault(expected=f"a key for {what}", got="none", fix="Pass key=jax.random.fold_in(key, k) at step k.")
    return function(*args)


def _key_argument(function: Callable[..., Any]) -> inspect.Parameter | None:
    # What wraps a function may take the key itself, as an estimator does, hand it on, as a jitted function does, or
    # take none, because it gives the function one.
    for follow in (False, True):
        try:
            parameters = inspect.signature(function, follow_wrapped=follow).parameters
        except (TypeError, ValueError):  # some callables of C have no signature
            continue
        if "key" in parameters or not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return parameters.get("key")
    return None
