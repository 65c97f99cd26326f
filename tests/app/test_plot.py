"""Pictures of samples, densities and fields: what is drawn is what was given."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from nablax._pages import DATA, SAMPLES
from nablax.app import plot_density, plot_field, plot_samples

SQUARE = ((-4.0, 4.0), (-3.0, 5.0))


def normal_at(centre, scale=1.0):
    return lambda ys: -jnp.sum(jnp.square((ys - jnp.array([centre])) / scale), axis=1) / 2


def colours(collection):
    return np.round(collection.get_facecolors()[:, :3], 6)


def test_samples_and_data_are_all_there_each_in_its_colour():
    random = np.random.default_rng(0)
    samples, data = random.normal(size=(30, 2)), random.normal(5.0, 1.0, size=(50, 2))
    figure = plot_samples(samples, against=data)
    (points,) = figure.axes[0].collections
    where, ink = np.asarray(points.get_offsets()), colours(points)
    for rows, colour in ((samples, SAMPLES), (data, DATA)):
        drawn = where[(ink == np.round(to_rgb(colour), 6)).all(axis=1)]
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(rows, axis=0))
    low, high = figure.axes[0].get_xlim()
    assert low < data[:, 0].min() and data[:, 0].max() < high
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["data", "samples"]


def test_samples_alone_have_no_legend_and_go_on_the_axes_given():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_samples(jnp.eye(2), axes=right) is figure
    assert len(right.collections) == 1 and not left.collections
    assert right.get_legend() is None


def test_more_columns_are_drawn_in_pairs():
    samples = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 100]
    figure = plot_samples(samples, against=samples + 1)
    axes = np.array(figure.axes).reshape(3, 3)
    assert [axis.get_visible() for axis in axes.ravel()] == [True, False, False, True, True, False, True, True, True]
    (points,) = axes[2, 1].collections
    where = np.asarray(points.get_offsets())[(colours(points) == np.round(to_rgb(SAMPLES), 6)).all(axis=1)]
    order = np.argsort(where[:, 0])
    np.testing.assert_allclose(where[order], samples[np.argsort(samples[:, 1])][:, 1:])
    assert (axes[2, 1].get_xlabel(), axes[2, 0].get_ylabel()) == ("x1", "x2")


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (0.5, 300.0), (1.0, -1e4)])
def test_the_lines_of_a_density_hold_their_share(scale, offset):
    """Inside radius r a normal of the plane holds 1 - exp(-r²/2): half at 1.177, nine tenths at 2.146."""
    figure = plot_density(lambda ys: normal_at((0.0, 1.0), scale)(ys) + offset, SQUARE, points=120)
    (axis,) = figure.axes
    (lines,) = (each for each in axis.collections if hasattr(each, "levels"))
    for path, share in zip(lines.get_paths(), (0.9, 0.5)):
        radius = np.linalg.norm(path.vertices - np.array([0.0, 1.0]), axis=1)
        np.testing.assert_allclose(radius, scale * np.sqrt(-2 * np.log(1 - share)), rtol=0.04)
    assert sorted(text.get_text() for text in lines.labelTexts) == ["50%", "90%"]


def test_a_density_is_shaded_where_it_is_high_and_the_right_way_up():
    figure = plot_density(normal_at((2.0, -1.0)), SQUARE, points=40)
    (image,) = figure.axes[0].images
    shade = np.asarray(image.get_array())
    row, column = np.unravel_index(shade.argmax(), shade.shape)
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-4.0, 4.0, -3.0, 5.0) and image.origin == "lower"
    assert left + (right - left) * (column + 0.5) / 40 == pytest.approx(2.0, abs=0.11)
    assert bottom + (top - bottom) * (row + 0.5) / 40 == pytest.approx(-1.0, abs=0.11)


def test_a_density_that_is_flat_or_zero_somewhere_is_drawn():
    figure = plot_density(lambda ys: jnp.where(ys[:, 0] > 0, 0.0, -jnp.inf), SQUARE)
    assert np.asarray(figure.axes[0].images[0].get_array())[:, :39].max() == 0.0


def test_the_arrows_of_a_field_are_the_field():
    figure = plot_field(lambda t, y, args: jnp.array([t + args * y[1], y[0]]), 0.5, SQUARE, args=3.0, points=5)
    axis, scale = figure.axes
    (arrows,) = axis.collections
    x, y = np.asarray(arrows.get_offsets()).T
    np.testing.assert_allclose(arrows.U, 0.5 + 3 * y, atol=1e-5)
    np.testing.assert_allclose(arrows.V, x, atol=1e-5)
    np.testing.assert_allclose(arrows.get_array(), np.hypot(arrows.U, arrows.V), rtol=1e-5)
    assert sorted(set(np.round(y, 4))) == pytest.approx([-2.2, -0.6, 1.0, 2.6, 4.2])
    assert scale.get_ylabel() == "speed"


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plot_samples(np.ones(3)), r"samples \[rows, columns\].*shape \[3\]"),
        (lambda: plot_samples(np.ones((3, 9))), "2 to 8 columns"),
        (lambda: plot_samples(np.array([["a", "b"]])), "of numbers"),
        (lambda: plot_samples(np.array([[1.0, np.nan], [1.0, 1.0]])), "1 rows that are not"),
        (lambda: plot_samples(np.ones((3, 2)), against=np.ones((3, 3))), "as many columns in against, 2"),
        (lambda: plot_samples(np.ones((3, 3)), axes=Figure().subplots()), "two columns on axes"),
        (lambda: plot_density(normal_at((0.0, 0.0)), ((1.0, -1.0), (0.0, 1.0))), "limits"),
        (lambda: plot_density(normal_at((0.0, 0.0)), (-1.0, 1.0)), "limits"),
        (lambda: plot_density(lambda ys: ys, SQUARE, points=4), r"\[16\].*\[16, 2\]"),
        (lambda: plot_density(lambda ys: ys[:, 0] * jnp.nan, SQUARE), "NaN"),
        (lambda: plot_density(lambda ys: ys[:, 0] * 0 - jnp.inf, SQUARE), "-inf as the largest"),
        (lambda: plot_density(jnp.ones(3), SQUARE), "a function"),
        (lambda: plot_field(lambda t, y, args: y[:1], 0.0, SQUARE), "shaped like"),
        (lambda: plot_field(lambda t, y, args: y / t, 0.0, SQUARE), "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("columns", [2, 3])
def test_without_matplotlib_the_extra_is_named(monkeypatch, columns):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"nablax\[app\]"):
        plot_samples(np.ones((3, columns)))
