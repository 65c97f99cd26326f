import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax.regulate import tract

X = jax.random.normal(jax.random.key(0), (7, 4))
SLOPES = jax.random.normal(jax.random.key(1), (7, 3))  # of each row's own loss, by its pre-activations
LAYOUTS = {0: ("NCHW", "OIHW", "NCHW"), -1: ("NHWC", "HWIO", "NHWC")}


def updated(inputs, slopes, damping, axis=0):
    regulator = tract(lambda w: w, outputs_axis=axis, damping=damping)
    gradient = slopes.T @ inputs / len(inputs)
    gradient = gradient if axis == 0 else gradient.T
    found = regulator.update(gradient, regulator.init(gradient), inputs=inputs)[0]
    return found if axis == 0 else found.T


@pytest.mark.parametrize("axis", [0, -1])
def test_it_solves_the_least_squares_problem_of_the_proposal(x64, axis):
    x, slopes, damping = X.astype(jnp.float64), SLOPES.astype(jnp.float64), 0.3
    n = len(x)
    # Rows of √(n λ) I make the penalty part of an ordinary least-squares problem.
    rows = np.concatenate([x, np.sqrt(n * damping) * np.eye(4)])
    wanted = np.concatenate([slopes, np.zeros((4, 3))])
    np.testing.assert_allclose(updated(x, slopes, damping, axis), np.linalg.lstsq(rows, wanted)[0].T, rtol=1e-9)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(
    "strides, padding", [((1, 1), "VALID"), ((2, 1), "SAME"), ((2, 2), [(1, 0), (2, 1)])], ids=["plain", "same", "odd"]
)
def test_a_convolution_solves_it_over_all_places(x64, axis, strides, padding):
    """The right answer by brute force: what every number of the kernel does to every pre-activation."""
    n, channels, outputs, size, damping = 3, 2, 2, (3, 2), 0.2
    image_shape = (n, channels, 5, 6) if axis == 0 else (n, 5, 6, channels)
    kernel_shape = (outputs, channels, *size) if axis == 0 else (*size, channels, outputs)
    images = jax.random.normal(jax.random.key(0), image_shape, jnp.float64)

    def layer(kernel):
        return jax.lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=LAYOUTS[axis])

    kernel = jnp.zeros(kernel_shape, jnp.float64)
    slopes = jax.random.normal(jax.random.key(1), layer(kernel).shape, jnp.float64)
    gradient = jax.grad(lambda k: jnp.sum(layer(k) * slopes))(kernel)
    regulator = tract(lambda w: w, outputs_axis=axis, strides=strides, padding=padding, damping=damping)
    found = regulator.update(gradient, regulator.init(kernel), inputs=images)[0]

    columns = np.asarray(jax.jacobian(layer)(kernel)).reshape(slopes.size, kernel.size)
    rows = slopes.size // outputs
    extended = np.concatenate([columns, np.sqrt(rows * damping) * np.eye(kernel.size)])
    wanted = np.concatenate([rows * np.ravel(slopes), np.zeros(kernel.size)])
    np.testing.assert_allclose(np.ravel(found), np.linalg.lstsq(extended, wanted)[0], rtol=1e-9)


def test_a_kernel_of_one_place_is_a_matrix_whose_rows_are_the_places():
    images = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    gradient = jax.random.normal(jax.random.key(1), (1, 1, 2, 6))
    kernel = tract(lambda w: w, outputs_axis=-1, strides=(1, 1), padding="VALID").update(gradient, None, inputs=images)
    matrix = tract(lambda w: w, outputs_axis=-1).update(gradient[0, 0], None, inputs=images)
    np.testing.assert_allclose(kernel[0][0, 0], matrix[0], rtol=1e-5)


def test_rows_of_an_embedding_move_by_their_mean_slope():
    tokens = jnp.array([0, 2, 2, 1, 0, 2, 1])
    ours = updated(jnp.eye(3)[tokens], SLOPES, 1e-7)
    expected = np.stack([np.asarray(SLOPES)[np.asarray(tokens) == t].mean(0) for t in range(3)])
    np.testing.assert_allclose(ours.T, expected, rtol=1e-4)


def test_without_damping_mixing_the_pixels_does_not_matter(x64):
    x, slopes = X.astype(jnp.float64), SLOPES.astype(jnp.float64)
    mixed = x @ jax.random.normal(jax.random.key(2), (4, 4), jnp.float64)
    moves = [inputs @ updated(inputs, slopes, 1e-12).T for inputs in (x, mixed)]
    np.testing.assert_allclose(moves[0], moves[1], rtol=1e-6)


def test_faults():
    with pytest.raises(ValueError, match="damping"):
        tract(lambda w: w, outputs_axis=0, damping=0.0)
    with pytest.raises(ValueError, match="outputs_axis 0 or -1"):
        tract(lambda w: w, outputs_axis=1)
    dense, convolution = tract(lambda w: w, outputs_axis=0), {"strides": (1, 1), "padding": "SAME"}
    last, first = (tract(lambda w: w, outputs_axis=axis, **convolution) for axis in (-1, 0))
    kernel, image = jnp.ones((3, 3, 1, 8)), jnp.ones((2, 8, 8, 1))
    for regulator, weight, inputs, words in (
        (dense, jnp.ones((2, 3)), None, "inputs"),
        (dense, jnp.ones((2, 3)), jnp.ones((2, 2)), "inputs"),
        (dense, jnp.ones(3), jnp.ones((2, 3)), "a matrix or a kernel"),
        (tract(lambda w: w, outputs_axis=-1), jnp.ones((2, 3)), jnp.ones((2, 3)), r"2 of them by the weight \(2, 3\)"),
        (dense, kernel, image, "strides and padding for a convolution"),
        (last, jnp.ones((2, 3)), jnp.ones((2, 2)), "and for nothing else"),
        (first, kernel, image, r"\[n, channels, \*places\]"),
        (last, kernel, image[..., 0], r"\[n, \*places, channels\]"),
    ):
        with pytest.raises(ValueError, match=words):
            regulator.update(weight, regulator.init(None), inputs=inputs)
