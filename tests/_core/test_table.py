import jax.numpy as jnp

from nablax._core import table
from nablax.calculus import Estimate


def test_columns_are_aligned_and_scalars_have_no_error():
    text = table(
        "Title",
        [("short", Estimate(jnp.array(1.0), jnp.array(0.25)), "nats"), ("a longer name", jnp.array(-12.5), "1")],
        ["a note"],
    )
    assert text.splitlines() == [
        "Title",
        "--------------------------------------",
        "               value  std. error  unit",
        "short              1        0.25  nats",
        "a longer name  -12.5              1",
        "a note",
    ]


def test_unknown_errors_are_shown_as_such():
    text = table("T", [("x", Estimate(jnp.array(1.0), jnp.array(jnp.nan)), "1")])
    assert "nan" in text
