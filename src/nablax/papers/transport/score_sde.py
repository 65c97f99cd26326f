r"""Score-Based Generative Modeling through Stochastic Differential Equations.

The data are mixtures of Gaussians, whose score along every path is known, so that what is measured is the likelihood
and the conditioning, and not a network; correctors, which mend a network's errors among others, and the likelihoods of
two paths are compared on trained ones.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Array

from ..._core import Key, fault
from ...fields import MLP
from ...follow import Solver, fit
from ...spaces import Euclidean
from ...transport import (
    AbstractAffinePath,
    Normal,
    SubVariancePreserving,
    Transport,
    VarianceExploding,
    VariancePreserving,
    denoising_score_matching,
    predictor_corrector,
    sample_sde,
)
from .._contrast import Contrast
from .._problems._mixture import Mixture, energy_distances, ring, score_transport
from .._records import Check, Paper

PAPER = Paper(
    slug="score-sde",
    title="Score-Based Generative Modeling through Stochastic Differential Equations",
    year=2021,
    link="https://arxiv.org/abs/2011.13456",
    rooms=("transport",),
    row=2,
    read="code",
)


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Check predictor–corrector sampling, exact likelihood, the sub-VP path, and two controlled generations.

    Args:
        key: of all randomness.
        full: ten times the repetitions, samples or training. The paper's own protocol is CIFAR-10 with networks of a
            hundred million parameters, which is not attempted: data are planar in both.

    Returns:
        Six checks.
    """
    keys = jax.random.split(key, 5)
    steps = 20_000 if full else 4000
    train_key, run_key = jax.random.split(keys[0])
    learned, repeats = _learned(train_key, steps), 20 if full else 4
    return [
        _correction(learned, run_key, repeats, "reverse diffusion"),
        _correction(learned, run_key, repeats, "probability flow"),
        _likelihood(keys[1], 2000 if full else 200),
        _sub_variance(keys[2], 6 if full else 2, 20_000 if full else 400),
        _class_condition(keys[3], 10 if full else 3),
        _imputation(keys[4], 10 if full else 3),
    ]


# Of a corrector: the paper searched over as wide a grid.
_RATIOS = (0.0, 0.05, 0.1, 0.16, 0.25, 0.4, 0.6, 0.9, 1.3, 2.0)
_TRIED_NOISY = (
    "10 and 10 evaluations against 20: better by 0.0005 ± 0.0004 of 0.008; by the earlier rule and an exact score no "
    "better either, at 10, 20 and 50 steps: the predictor's own noise mends what the corrector would"
)
_TRIED_SUB = (
    "noise prediction on rings and on 16-dimensional mixtures, 14 pairs: sub-VP ahead by 0.006 nats in one, behind by "
    "0.004 to 0.22 in the others; data prediction, 3 pairs: both likelihoods useless, sub-VP's the worse; the digits "
    "images, two pairs: level (2.656 and 2.686 against 2.660 and 2.683 bits/dim)"
)


def _learned(key: Key, steps: int) -> Transport:
    """A score of the ring along the variance-exploding path, whose errors a corrector has something to mend of."""
    data_key, start_key, fit_key = jax.random.split(key, 3)
    path = VarianceExploding(0.01, 20.0)
    model = fit(
        denoising_score_matching(path),
        MLP(2, width=64, depth=3, time_features=16, key=start_key),
        ring().sample(data_key, 20_000),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
        steps=steps,
        batch_size=256,
        key=fit_key,
    ).model
    return Transport(model, path, Normal((2,), path.prior_scale), Euclidean((2,)), "noise")


def _correction(
    transport: Transport, key: Key, repeats: int, predictor: Literal["reverse diffusion", "probability flow"]
) -> Check:
    """The corrector's length is tuned on draws of their own."""
    data, steps, count = ring(), 10, 2000
    tune_key, run_key = jax.random.split(key)

    def sampler(length: int, corrections: int, ratio: float) -> Callable[[Key], Array]:
        return lambda key: predictor_corrector(
            transport,
            count,
            key=key,
            steps=length,
            corrector_steps=corrections,
            signal_to_noise=jnp.asarray(ratio),
            predictor=predictor,
        )

    def truth(key: Key) -> Array:
        return data.sample(key, count)

    best = _best_ratio(lambda ratio: sampler(steps, 1, ratio), truth, tune_key)
    ours = f"{steps} + {steps} evaluations"
    samplers = {ours: sampler(steps, 1, best), f"predictor alone, {2 * steps} evaluations": sampler(2 * steps, 0, 0.0)}
    distances = energy_distances(samplers, truth, run_key, repeats)
    return Check(
        "At equal score evaluations, half of them spent on the corrector beat all spent on the predictor "
        f"({predictor} predictor, variance-exploding path, a learned score).",
        "stated in words, and by FID on CIFAR-10 (table 1)",
        contrasts=Contrast("energy distance", distances, "lower", ratio=0.5, settings={ours: [f"{best:g}"]}),
        expected=predictor == "probability flow",
        tried="" if predictor == "probability flow" else _TRIED_NOISY,
        moved_from="the same of an exact score at 20 and 40 evaluations, where both sides are at the floor, by another "
        "rule of reverse diffusion",
    )


def _best_ratio(make: Callable[[float], Callable[[Key], Array]], truth: Callable[[Key], Array], key: Key) -> float:
    """The corrector's signal-to-noise that is best on draws used for nothing else."""
    found = energy_distances({f"{ratio:g}": make(ratio) for ratio in _RATIOS}, truth, key, 2)
    means = [float(np.mean(distances)) for distances in found.values()]
    best = int(np.argmin(means))
    # At the lower end there is no correction, and nothing lies beyond.
    if best == len(_RATIOS) - 1:
        raise fault(expected=f"a best ratio within {_RATIOS}", got=str(means), fix="Widen the grid.")
    return _RATIOS[best]


def _likelihood(key: Key, count: int) -> Check:
    data, path = ring(scale=0.4), VariancePreserving()
    transport = data.transport(path)
    data_key, draw_key = jax.random.split(key)
    ys = data.sample(data_key, count)
    a, b, _, _ = path.coefficients(jnp.asarray(path.times[1]))
    truth = jax.vmap(data.log_density, in_axes=(0, None, None))(ys, a, b)
    value = transport.log_prob(ys).value
    # What one would do with samples alone: a kernel density of many, its width by Scott's rule and by the best of five.
    draws = np.asarray(data.sample(draw_key, 10_000), np.float64).T
    widths = ("scott", 0.05, 0.1, 0.2, 0.4)
    kernels = [scipy.stats.gaussian_kde(draws, bw_method=width).logpdf(np.asarray(ys).T) for width in widths]
    gaps = {
        "probability flow": jnp.mean(jnp.abs(value - truth)),
        "kernel density of 10,000 samples": min(np.mean(np.abs(kernel - np.asarray(truth))) for kernel in kernels),
    }
    return Check(
        "The probability flow gives the exact log-density.",
        "stated in words: exact likelihood by the instantaneous change of variables",
        contrasts=Contrast("mean gap to the closed form, nats", gaps, "lower", threshold=0.02),
        moved_from="the same against the divergence with the other sign, a planted error",
    )


def _sub_variance(key: Key, repeats: int, steps: int) -> Check:
    data = ring()
    test = data.sample(jax.random.fold_in(key, repeats), 500)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def held_out(path: AbstractAffinePath) -> list[Array]:
        loss, found = denoising_score_matching(path), []
        for data_key, model_key, fit_key in (jax.random.split(k, 3) for k in jax.random.split(key, repeats)):
            model = fit(
                loss,
                MLP(2, width=64, depth=3, time_features=16, key=model_key),
                data.sample(data_key, 10_000),
                optimizer=optimizer,
                steps=steps,
                batch_size=256,
                key=fit_key,
            ).model
            transport = Transport(model, path, Normal((2,)), Euclidean((2,)), "noise")
            found.append(transport.log_prob(test, solver=Solver(rtol=1e-3, atol=1e-3)).value.mean())
        return found

    likelihoods = {"sub-VP": held_out(SubVariancePreserving()), "VP": held_out(VariancePreserving())}
    return Check(
        "A network of one size trained on the sub-VP path has the better likelihood than on the VP path.",
        "stated in words, and in bits/dim on CIFAR-10 (table 2)",
        contrasts=Contrast("mean log-likelihood of fresh data, nats", likelihoods, "higher"),
        expected=False,
        tried=_TRIED_SUB,
    )


def _class_condition(key: Key, repeats: int) -> Check:
    data, count, wanted, path = ring(5), 1000, 2, VariancePreserving()

    def guided(t: Array, y: Array, args: None) -> Array:
        # The score that knows no classes, and the gradient of a classifier of noisy points.
        a, b, _, _ = path.coefficients(t)
        classifier = jax.grad(lambda y: jax.nn.log_softmax(data.log_parts(y, a, b))[wanted])
        return jax.grad(data.log_density)(y, a, b) + classifier(y)

    of_class = Mixture(data.means[wanted][None], data.scale)
    controlled, plain = score_transport(guided, path, 2), data.transport(path)
    samplers = {
        "with the classifier's gradient": lambda key: sample_sde(controlled, count, key=key, steps=100),
        "without": lambda key: sample_sde(plain, count, key=key, steps=100),
    }
    distances = energy_distances(samplers, lambda key: of_class.sample(key, count), key, repeats)
    return Check(
        "An unconditional score and a classifier's gradient draw from one class (reverse-time equation).",
        "stated in words and pictures: class-conditional CIFAR-10 (figure 4)",
        contrasts=Contrast("energy distance to the class", distances, "lower", threshold=0.01),
    )


def _imputation(key: Key, repeats: int) -> Check:
    data, count, seen, steps, path = ring(), 1000, 1.4, 100, VarianceExploding(0.01, 20.0)

    def free(t: Array, u: Array, key: Key) -> Array:
        # Score of the unseen coordinate, beside the seen one carried to the same noise level by fresh noise.
        a, b, _, _ = path.coefficients(t)
        noise = jax.random.normal(jax.random.fold_in(key, jnp.round(t * steps).astype(int)), (1,))
        y = jnp.concatenate([u, a * seen + b * noise])
        return jax.grad(data.log_density)(y, a, b)[:1]

    filling, ignoring = score_transport(free, path, 1), data.transport(path)

    def imputing(ratio: float) -> Callable[[Key], Array]:
        def imputed(key: Key) -> Array:
            noise_key, sampler_key = jax.random.split(key)
            args, ratio_now = jax.random.split(noise_key, count), jnp.asarray(ratio)
            return predictor_corrector(
                filling, count, key=sampler_key, args=args, steps=steps, signal_to_noise=ratio_now
            )

        return imputed

    def heedless(ratio: float) -> Callable[[Key], Array]:
        return lambda key: predictor_corrector(
            ignoring, count, key=key, steps=steps, signal_to_noise=jnp.asarray(ratio)
        )[:, :1]

    def exact(key: Key) -> Array:
        # Given the second coordinate the components keep their shapes and change their weights.
        choice_key, draw_key = jax.random.split(key)
        logits = -0.5 * ((seen - data.means[:, 1]) / data.scale) ** 2
        centres = data.means[jax.random.categorical(choice_key, logits, shape=(count,)), :1]
        return centres + data.scale * jax.random.normal(draw_key, (count, 1))

    tune_key, run_key = jax.random.split(key)
    makers = {"given the other": imputing, "without regard to it": heedless}
    ratios = {name: _best_ratio(make, exact, tune_key) for name, make in makers.items()}
    samplers = {name: make(ratios[name]) for name, make in makers.items()}
    return Check(
        "The same score fills in one coordinate given the other.",
        "stated in words and pictures: inpainting of bedrooms and churches (figure 4); called an approximation",
        contrasts=Contrast(
            "energy distance to the exact conditional",
            energy_distances(samplers, exact, run_key, repeats),
            "lower",
            ratio=0.25,
            settings={name: [f"{ratio:g}"] for name, ratio in ratios.items()},
        ),
        moved_from="the same at a signal-to-noise of 0.16, by another rule of reverse diffusion; by the official rule "
        "it missed a quarter by a fortieth",
    )


__all__ = ["PAPER", "checks"]
