"""The bridge beside PyTorch's own autograd."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nablax.calculus import antisymmetry, divergence, jvp, vjp  # noqa: E402
from nablax.diagnose import path_geometry  # noqa: E402
from nablax.fields import from_torch  # noqa: E402

# PyTorch's forward mode, when first used, warns of a function that PyTorch itself calls.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")


class Network(torch.nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Linear(3 + 1 + 2, 16, dtype=dtype)
        self.outer = torch.nn.Linear(16, 3, dtype=dtype)

    def forward(self, t, y, args=None):
        args = torch.zeros(len(y), 2, dtype=y.dtype) if args is None else args
        return self.outer(torch.tanh(self.inner(torch.cat([t[:, None], y, args], dim=1))))


@pytest.fixture(scope="module")
def network():
    return Network().eval()


Y, V, A = np.float32([0.3, -1.0, 0.7]), np.float32([1.0, 2.0, -0.5]), np.float32([0.2, 0.9])


def rows(*arrays):
    return [torch.from_numpy(np.array(array, np.float32))[None] for array in arrays]


def jacobian(network, t=0.4, y=Y, a=A):
    t, y, a = rows(t, y, a)
    return torch.autograd.functional.jacobian(lambda z: network(t, z, a)[0], y)[:, 0].numpy()


def test_values_and_products_are_those_of_torch(network):
    field = from_torch(network)
    expected = network(*rows(0.4, Y, A))[0].detach().numpy()
    np.testing.assert_allclose(jax.jit(field)(0.4, Y, A), expected, rtol=1e-6)
    matrix = jacobian(network)
    np.testing.assert_allclose(jax.jit(jvp(field))(0.4, Y, V, A)[1], matrix @ V, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(vjp(field))(0.4, Y, V, A)[1], matrix.T @ V, rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(field, 1)(0.4, Y, A), matrix, rtol=1e-5)
    np.testing.assert_allclose(jax.jacrev(field, 1)(0.4, Y, A), matrix, rtol=1e-5)
    np.testing.assert_allclose(divergence(field)(0.4, Y, A), np.trace(matrix), rtol=1e-5)


def test_time_and_condition_have_derivatives_too(network):
    field = from_torch(network)
    t, y, a = rows(0.4, Y, A)
    for number, argument in ((0, t), (2, a)):

        def alone(x, number=number):
            return network(*(x if i == number else other for i, other in enumerate((t, y, a))))[0]

        expected = torch.autograd.functional.jacobian(alone, argument).numpy().reshape(3, -1)
        for jacobian_of in (jax.jacfwd, jax.jacrev):
            ours = np.reshape(jacobian_of(field, number)(jnp.float32(0.4), Y, A), (3, -1))
            np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_vmap_sends_one_batch_nested_and_partly_mapped(network):
    calls = []

    def counted(t, y, args=None):
        calls.append(len(y))
        return network(t, y, args)

    field = from_torch(counted)
    ys = jax.random.normal(jax.random.key(0), (4, 5, 3))
    ts = jnp.linspace(0, 1, 5)
    out = jax.jit(jax.vmap(jax.vmap(field, (0, 0, None)), (None, 0, None)))(ts, ys, A)
    assert calls == [20]
    for i in range(4):
        for j in range(5):
            expected = network(*rows(ts[j], ys[i, j], A))[0].detach().numpy()
            np.testing.assert_allclose(out[i, j], expected, rtol=1e-5, atol=1e-7)
    jacobians = jax.vmap(jax.jacrev(lambda y: field(0.4, y, A)))(ys[0])
    np.testing.assert_allclose(jacobians[2], jacobian(network, y=np.asarray(ys[0, 2])), rtol=1e-4, atol=1e-6)


def test_what_is_built_on_fields_works(network):
    field = from_torch(network)
    matrix = jacobian(network, a=np.zeros(2))
    record = antisymmetry(field, probes=400)(0.4, Y, key=jax.random.key(0))
    expected = ((matrix - matrix.T) ** 2).sum() / 4 / (matrix**2).sum()
    assert abs(record.ratio.value - expected) < 4 * record.ratio.standard_error
    assert path_geometry(field, jnp.asarray(Y)[None], steps=4).energy.value > 0


def test_double_precision(x64):
    network = Network(torch.float64).eval()
    field = from_torch(network)
    y = jnp.asarray(Y, jnp.float64)
    push = jax.jvp(lambda z: field(0.4, z), (y,), (jnp.asarray(V, jnp.float64),))[1]
    step = 1e-6
    difference = (field(0.4, y + step * V) - field(0.4, y - step * V)) / (2 * step)
    assert push.dtype == jnp.float64
    np.testing.assert_allclose(push, difference, rtol=1e-8)


class Downhill(torch.nn.Module):
    """Minus the gradient of an energy, taken within."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inner = torch.nn.Linear(3, 5)

    def forward(self, t, y):
        y = y if y.requires_grad else y.requires_grad_()
        energy = (torch.tanh(self.inner(y)) ** 2).sum() + (t[:, None] * y**2).sum()
        return -torch.autograd.grad(energy, y, create_graph=True)[0]


@pytest.mark.parametrize("first", ["value", "push", "pull"])
def test_a_module_that_takes_gradients_within_has_values_and_both_products(first):
    """Whatever is asked for first; the Jacobian is the energy's Hessian, so both products are alike."""
    module = Downhill().eval()
    t, y = rows(0.4, Y)
    matrix = torch.autograd.functional.jacobian(lambda z: module(t, z)[0], y)[:, 0].detach().numpy()
    field = from_torch(module)
    found = {
        "value": lambda: (jax.jit(field)(0.4, Y), module(t, y)[0].detach().numpy()),
        "push": lambda: (jax.jit(jvp(field))(0.4, Y, V)[1], matrix @ V),
        "pull": lambda: (jax.jit(vjp(field))(0.4, Y, V)[1], matrix.T @ V),
    }
    for name in (first, *found):
        np.testing.assert_allclose(*found[name](), rtol=1e-5)
    by_time = jax.jvp(lambda t: field(t, Y), (jnp.asarray(0.4),), (jnp.ones(()),))[1]
    np.testing.assert_allclose(by_time, -2 * Y, rtol=1e-5)


def test_a_fault_of_the_modules_own_stays_what_it_is():
    def broken(t, y):
        raise RuntimeError("no such layer")

    with pytest.raises(Exception, match="no such layer"):
        jax.block_until_ready(from_torch(broken)(0.0, jnp.ones(3)))


def test_faults_speak(network):
    for module in (torch.nn.Linear(3, 3).eval(), lambda y: y, lambda t, y, args, more: y):
        with pytest.raises(ValueError, match=r"from_torch\(lambda t, y: module\(y\)\)"):
            from_torch(module)
    from_torch(lambda t, y, args: y), from_torch(lambda *arrays: arrays[1])
    with pytest.raises(ValueError, match="evaluation mode"):
        from_torch(Network().train())
    with pytest.raises(ValueError, match="one array for y"):
        from_torch(network)(0.0, (jnp.ones(3), jnp.ones(3)))
    with pytest.raises(ValueError, match="floating-point numbers"):
        from_torch(network)(0.0, Y, jnp.arange(2))
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.hessian(lambda y: from_torch(network)(0.4, y, A).sum())(jnp.asarray(Y))
    with pytest.raises(Exception, match="shaped like its rows"):
        jax.block_until_ready(from_torch(lambda t, y: y[:, :2])(0.0, jnp.ones(3)))


def test_a_module_in_bfloat16():
    field = from_torch(Network(torch.bfloat16).eval())
    expected = from_torch(Network().eval())(0.4, Y, A)
    np.testing.assert_allclose(field(0.4, Y, A), expected, atol=0.03)
    halves = field(0.4, jnp.asarray(Y, jnp.bfloat16), jnp.asarray(A, jnp.bfloat16))
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_allclose(halves.astype(jnp.float32), expected, atol=0.03)
    push = jax.jvp(lambda y: field(0.4, y, A), (jnp.asarray(Y),), (jnp.asarray(V),))[1]
    np.testing.assert_allclose(push, jacobian(Network().eval()) @ V, atol=0.05)
