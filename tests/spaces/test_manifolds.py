"""One suite for every curved space, and closed forms by NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg as linalg

from nablax.spaces import AbstractManifold, Lorentz, PoincareBall, PositiveDefinite, Rotations, Sphere, Stiefel

SPACES = {
    "sphere": Sphere((2, 2)),
    "ball": PoincareBall(3),
    "lorentz": Lorentz(4),
    "positive definite": PositiveDefinite(3),
    "rotations": Rotations(3),
    "frames": Stiefel(5, 2),
    "frames of most": Stiefel(3, 2),
}
FRAMES = ("frames", "frames of most")
spaces = pytest.mark.parametrize("name", SPACES)
LENGTH = 1.2  # of the tangents: with room to π
_found = {}


def measured(space, y, noise, other):
    """Everything the suite looks at, of one point and two ambient arrays; calls are stacked, since each is compiled."""

    def each(function, *rows):
        return jax.vmap(function)(*(jnp.stack(row) for row in rows))

    v, w = space.tangent(y, noise), space.tangent(y, other)
    v, w = (LENGTH * x / jnp.sqrt(space.inner(y, x, x)) for x in (v, w))
    z, middle, end = each(space.exp, [y, y, y], [v, v / 2, w / 2])
    back, way_back, through = each(space.log, [y, z, end], [z, y, middle])
    carried, way = each(space.transport, [y, y], [w, v], [z, z])
    results = {
        "y": y, "v": v, "w": w, "z": z, "back": back, "way back": way_back, "carried": carried, "way carried": way,
        "projected": each(space.project, [y, z]), "tangents again": each(space.tangent, [y, z], [v, carried]),
        "distances": each(space.distance, [y, z, y, y], [z, y, middle, y]),
        "products": each(space.inner, [y, y], [w, v], [w, w]),
        "products carried": each(space.inner, [z, z], [carried, way], [carried, carried]),
        "by gradient": space.inner(y, space.gradient(y, other), v), "by ambient": jnp.sum(other * v),
        "exp at zero": jax.jvp(lambda u: space.exp(y, u), (jnp.zeros_like(y),), (v,))[1],
    }  # fmt: skip
    if not isinstance(space, Stiefel):
        # Reflecting the end of w through the middle of the way ends in a transport: exactly so in symmetric spaces.
        results["ladder"] = -2 * space.log(z, space.exp(end, 2 * through))
    return results


def there_and_back(space, y, noise, other):
    """What the suite looks at in single precision."""
    v = space.tangent(y, noise)
    v = v / jnp.sqrt(space.inner(y, v, v))
    z = space.exp(y, v)
    return {"v": v, "z": z, "back": space.log(y, z), "projected": space.project(z), "carried": space.transport(y, v, z)}


def found(name, dtype=jnp.float64):
    """The measurements at three points as NumPy's arrays: one program a space and type."""
    if (name, dtype) not in _found:
        space, look = SPACES[name], measured if dtype == jnp.float64 else there_and_back
        with jax.enable_x64(True):
            key, one, two = jax.random.split(jax.random.key(3), 3)

            @jax.jit
            def program():
                points = space.sample(3, key=key).astype(dtype)
                noise = [jax.random.normal(k, points.shape, dtype) for k in (one, two)]
                return jax.vmap(lambda *arrays: look(space, *arrays))(points, *noise)

            _found[name, dtype] = jax.tree.map(np.asarray, program())
    return _found[name, dtype]


def close(one, other, atol=1e-11):
    np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@spaces
def test_points_and_tangents_stay_where_they_belong(name):
    space, got = SPACES[name], found(name)
    assert isinstance(space, AbstractManifold) and space.shape == got["y"].shape[1:]
    close(got["projected"], np.stack([got["y"], got["z"]], axis=1))
    close(got["tangents again"], np.stack([got["v"], got["carried"]], axis=1))


@spaces
def test_the_logarithm_undoes_the_exponential_and_is_as_long_as_the_distance(name):
    got = found(name)
    close(got["back"], got["v"])
    close(got["distances"][:, :3], np.tile([LENGTH, LENGTH, LENGTH / 2], (3, 1)))
    close(got["distances"][:, 3], 0, atol=1e-7)
    close(got["exp at zero"], got["v"])


@spaces
def test_the_gradient_is_that_of_the_metric(name):
    got = found(name)
    close(got["by gradient"], got["by ambient"])


@pytest.mark.parametrize("name", [name for name in SPACES if name not in FRAMES])
def test_transport_is_parallel(name):
    got = found(name)
    close(got["products carried"], got["products"])
    close(got["way carried"], -got["way back"])
    close(got["carried"], got["ladder"])


@pytest.mark.parametrize("name", FRAMES)
def test_transport_of_frames_projects_and_shortens(name):
    got = found(name)
    close(got["carried"], got["w"] - got["z"] @ _sym(_t(got["z"]) @ got["w"]))
    assert np.all(got["products carried"][:, 0] < got["products"][:, 0])


@spaces
def test_single_precision(name):
    got = found(name, jnp.float32)
    assert {leaf.dtype.name for leaf in got.values()} == {"float32"}
    close(got["projected"], got["z"], atol=1e-5)
    close(got["back"], got["v"], atol=3e-4)


def _t(matrix):
    return np.swapaxes(matrix, -1, -2)


def _sym(matrix):
    return (matrix + _t(matrix)) / 2


def test_exponentials_and_distances_by_closed_forms():
    got = found("sphere")
    close(np.cos(LENGTH), np.sum(got["y"] * got["z"], axis=(1, 2)))
    got = found("ball")
    squares = [1 - np.sum(got[x] ** 2, axis=1) for x in "yz"]
    close(np.cosh(LENGTH), 1 + 2 * np.sum((got["y"] - got["z"]) ** 2, axis=1) / (squares[0] * squares[1]))
    got = found("lorentz")
    close(np.cosh(LENGTH), got["y"][:, 0] * got["z"][:, 0] - np.sum(got["y"][:, 1:] * got["z"][:, 1:], axis=1))
    for y, v, z in zip(*(found("rotations")[x] for x in "yvz")):
        close(np.trace(y.T @ z), 1 + 2 * np.cos(LENGTH))
        close(y @ linalg.expm(y.T @ v), z)
    for y, v, z in zip(*(found("positive definite")[x] for x in "yvz")):
        root = linalg.sqrtm(y)
        close(root @ linalg.expm(linalg.solve(root, linalg.solve(root, v).T)) @ root, z, atol=1e-10)
        close(np.linalg.norm(np.log(linalg.eigvalsh(z, y))), LENGTH)
    for y, v, z in zip(*(found("frames")[x] for x in "yvz")):
        inside = y.T @ v
        basis, rest = np.linalg.qr(v - y @ inside)
        turn = linalg.expm(np.block([[inside, -rest.T], [rest, np.zeros((2, 2))]]))
        close(np.hstack([y, basis]) @ turn[:, :2], z)


def test_at_the_antipode_and_beside_it(x64):
    space, y = Sphere(3), np.array([0.6, 0.0, 0.8])
    across = np.array([0.0, 1.0, 0.0])
    log = jax.jit(space.log)
    for apart in (0.0, 1e-9, 1e-4):
        z = -np.cos(apart) * y + np.sin(apart) * across
        v = log(jnp.asarray(y), jnp.asarray(z))
        close(np.linalg.norm(v), np.pi - apart, atol=1e-12)
        close(space.exp(y, v), z, atol=1e-12)
    assert np.all(np.isnan(space.project(jnp.zeros(3))))


def test_beside_the_edge_of_the_ball():
    space = PoincareBall(2)
    far = space.exp(jnp.zeros(2), jnp.array([1e30, 0.0]))
    np.testing.assert_allclose(far, [1 - 4e-3, 0])
    np.testing.assert_allclose(space.project(jnp.array([3.0, -4.0])), [0.5976, -0.7968], rtol=1e-6)
    other = space.project(jnp.array([-9.0, 0.0]))
    np.testing.assert_allclose(space.distance(far, other), 4 * np.arctanh(0.996), rtol=1e-4)
    np.testing.assert_allclose(space.exp(far, space.log(far, other)), other, rtol=1e-4)


def test_turns_by_nearly_a_half(x64):
    space = Rotations(3)
    for apart in (1e-3, 1e-6):
        z = linalg.expm((np.pi - apart) * np.array([[0, -0.6, 0.8], [0.6, 0, 0], [-0.8, 0, 0]]))
        close(space.distance(jnp.eye(3), jnp.asarray(z)), np.pi - apart, atol=1e-9)


def test_logarithms_have_derivatives_where_points_meet_and_eigenvalues_are_equal(x64):
    """The derivative of log(y, ·) at y is the identity on tangents; a plain one by eigenvectors is no number here."""

    @jax.jit
    def slopes(noise):
        results = {}
        for name in ("sphere", "ball", "lorentz", "positive definite", "rotations"):
            space = SPACES[name]
            y = space.exp(*_start(space))
            v = space.tangent(y, noise[: y.size].reshape(y.shape))
            results[name] = v, jax.jvp(lambda z, y=y, space=space: space.log(y, z), (y,), (v,))[1]
        return results

    def _start(space):
        y = jnp.eye(3) if len(space.shape) == 2 and space.shape == (3, 3) else space.project(jnp.ones(space.shape) / 3)
        return y, jnp.zeros(space.shape)

    for v, slope in slopes(jax.random.normal(jax.random.key(0), (9,))).values():
        close(slope, v, atol=1e-12)


def test_a_logarithm_of_frames_too_far_is_no_number_rather_than_a_wrong_one(x64):
    space = Stiefel(4, 2)
    far = space.log(jnp.eye(4, 2), -jnp.eye(4, 2))
    assert not np.any(np.isfinite(far))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sphere(1), "two numbers at least"),
        (lambda: Stiefel(3, 3), "fewer columns than rows.*Rotations"),
        (lambda: Lorentz(1), "size as a whole number, at least 2"),
        (lambda: Sphere(3).exp(jnp.ones((2, 3)), jnp.ones((2, 3))), "vmap"),
        (lambda: Sphere(3).sample(2, key=0), "a random key"),
    ],
)
def test_what_cannot_be_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_numbers_of_dimensions():
    dims = {name: space.dim for name, space in SPACES.items()}
    assert dims == {
        "sphere": 3, "ball": 3, "lorentz": 3, "positive definite": 6, "rotations": 3, "frames": 7, "frames of most": 3
    }  # fmt: skip
