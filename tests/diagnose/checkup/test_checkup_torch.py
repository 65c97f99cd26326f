"""A check-up of PyTorch's training beside JAX's own of the same network, and PyTorch's optimisers beside themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

from nablax.diagnose import checkup, checkup_torch  # noqa: E402
from nablax.diagnose._checkup._torch_optimizer import as_optax  # noqa: E402

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = torch.nn.Linear(3, 6), torch.nn.Linear(6, 2)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))


def cross_entropy(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def jax_loss(params, batch):
    hidden = jnp.tanh(batch[0] @ params["inner.weight"].T + params["inner.bias"][None])
    logits = hidden @ params["outer.weight"].T + params["outer.bias"][None]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]))


BATCH = (torch.from_numpy(X), torch.from_numpy(Y))


def stepped(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model, BATCH).backward()
        optimizer.step()


def weights(model):
    return {name: leaf.detach().numpy().copy() for name, leaf in model.named_parameters()}


def test_a_check_up_finds_what_that_of_the_same_network_in_jax_finds():
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    stepped(model, optimizer)
    before, count = weights(model), optimizer.state[model.inner.weight]["step"].item()
    params = {name: jnp.asarray(leaf) for name, leaf in weights(model).items()}
    transform, state = as_optax(torch, optimizer, dict(model.named_parameters()), params)
    expected = checkup(jax_loss, params, (X, Y), optimizer=transform, opt_state=state, key=KEY, chance=np.log(2))
    found = checkup_torch(model, cross_entropy, BATCH, optimizer, key=KEY, chance=np.log(2))
    for part in ("sharpness", "step", "noise", "rehearsal", "layers", "repeats"):
        one, other = (jax.tree.leaves(getattr(record, part)) for record in (found, expected))
        assert len(one) == len(other) > 0
        for a, b in zip(one, other):
            np.testing.assert_allclose(a, b, rtol=5e-3, atol=2e-5)
    assert found.sharpness.rule.name() == expected.sharpness.rule.name() and "Adam" in found.sharpness.rule.name()
    assert [finding.topic for finding in found.findings] == [finding.topic for finding in expected.findings]
    assert any("PyTorch" in note for note in found.notes)
    # Nothing has moved.
    jax.tree.map(np.testing.assert_array_equal, before, weights(model))
    assert optimizer.state[model.inner.weight]["step"].item() == count


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), eps=1e-4, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.SGD([{"params": p[:1], "lr": 1.0}, {"params": p[1:]}], lr=0.1, momentum=0.5),
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_next_step_is_the_optimisers_own(make, steps):
    model = Network()
    optimizer = make(list(model.parameters()))
    stepped(model, optimizer, steps)
    before = weights(model)
    params = jax.tree.map(jnp.asarray, before)
    transform, state = as_optax(torch, optimizer, dict(model.named_parameters()), params)
    update, _ = transform.update(jax.grad(jax_loss)(params, (X, Y)), state, params)
    stepped(model, optimizer, 1)
    moved = jax.tree.map(lambda a, b: a - b, weights(model), before)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), update, moved)


def test_a_module_that_differentiates_within_and_normalises_is_measured_and_left_alone():
    """Its loss is the squared slope of an energy over the inputs; running statistics are not written to."""

    class Energy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.norm = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)
            self.last = torch.nn.Linear(4, 1)

        def forward(self, x):
            x = x.requires_grad_() if x.is_leaf else x
            energy = self.last(torch.tanh(self.norm(self.first(x)))).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]

    model = Energy()
    running = model.norm.running_mean.clone()
    squares = lambda model, batch: torch.mean((model(batch) - 1.0) ** 2)  # noqa: E731
    record = checkup_torch(model, squares, X, torch.optim.SGD(model.parameters(), lr=0.01), key=KEY, rows=0)
    assert record.loss == pytest.approx(squares(model, torch.from_numpy(X)).item(), rel=1e-5)
    assert np.isfinite(record.sharpness.ratio.value) and record.step.actual.value < 0
    assert model.training
    model.norm.running_mean.copy_(running)
    checkup_torch(model, squares, X, key=KEY, rows=0, learning_rate=0.01)
    assert torch.equal(model.norm.running_mean, running)


def test_what_cannot_be_read_is_refused():
    model = Network()
    for call, message in [
        (
            lambda: checkup_torch(model, cross_entropy, BATCH, torch.optim.Adagrad(model.parameters()), key=KEY),
            "Adagrad",
        ),
        (
            lambda: checkup_torch(
                model, cross_entropy, BATCH, torch.optim.Adam(model.parameters(), amsgrad=True), key=KEY
            ),
            "amsgrad",
        ),
        (lambda: checkup_torch(jax_loss, cross_entropy, BATCH, key=KEY), "torch.nn.Module"),
        (lambda: checkup_torch(model, cross_entropy, BATCH, key=KEY, logits=jax_loss), "logits"),
        (
            lambda: checkup_torch(
                model, cross_entropy, BATCH, torch.optim.SGD(model.inner.parameters(), lr=0.1), key=KEY
            ),
            "outer",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
