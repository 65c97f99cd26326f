"""Atoms: values that recur more often than a smooth density allows, found where they are and nowhere else."""

import math

import numpy as np
import polars as pl
import pytest

from nablax.app._data._codec import fit_codec
from nablax.app._data._sources import table


def test_atoms_are_found_where_values_recur_and_nowhere_else():
    random, n = np.random.default_rng(0), 20_000
    smooth = {
        "poisson": random.poisson(20, n),
        "uniform": random.integers(0, 40, n),
        "normal": np.round(random.normal(0, 6, n)),
        "real": random.normal(size=n),
        "cents": np.round(np.exp(random.normal(3, 1, n)), 2),
    }
    heaped = {
        "zeros": (np.where(random.random(n) < 0.4, 0.0, random.exponential(3, n)), {0.0: 0.4}),
        "cap": (np.minimum(random.exponential(3, n), 5.0), {5.0: math.exp(-5 / 3)}),
        "price": (np.where(random.random(n) < 0.1, 9.99, np.round(np.exp(random.normal(3, 1, n)), 2)), {9.99: 0.1}),
        "counts": (np.where(random.random(n) < 0.5, 0, random.poisson(9, n)), {0.0: 0.5}),
    }
    for name, values in smooth.items():
        assert fit_codec(table(pl.DataFrame({"x": values}))).columns[0].atoms == (), name
    for name, (values, shares) in heaped.items():
        kind = fit_codec(table(pl.DataFrame({"x": values}))).columns[0]
        found = dict(zip(kind.atoms, kind.shares[1:], strict=True))
        assert found.keys() == shares.keys(), name
        for value, share in shares.items():
            assert found[value] == pytest.approx(np.mean(values == value), abs=1e-12)
            assert found[value] == pytest.approx(share, abs=4 * math.sqrt(share / n))
        # What is left is standardised by itself.
        rest = values[~np.isin(values, kind.atoms)]
        base, _ = fit_codec(table(pl.DataFrame({"x": values}))).encode(pl.DataFrame({"x": rest}))
        assert (base[:, 0, 0] == 0).all()
        if not kind.scale.grid and not kind.scale.log:
            assert float(base[:, 0, 1].mean()) == pytest.approx(0.0, abs=1e-4)
            assert float(base[:, 0, 1].std()) == pytest.approx(1.0, abs=1e-4)


def test_heaps_at_round_numbers_are_atoms_and_their_neighbours_are_not():
    random, n = np.random.default_rng(1), 20_000
    ages = random.normal(40, 10, n)
    heaped = np.where(random.random(n) < 0.3, 5 * np.round(ages / 5), np.round(ages))
    kind = fit_codec(table(pl.DataFrame({"age": heaped}))).columns[0]
    assert set(kind.atoms) >= {25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0}
    assert all(atom % 5 == 0 for atom in kind.atoms)


def test_the_shoulders_of_a_heap_are_atoms_and_a_smooth_slope_is_none():
    # Carats: people cut down to a round weight or a little above it, and nothing lies just below it.
    random, n = np.random.default_rng(2), 12_000
    smooth = 0.2 + random.exponential(0.5, n)
    heaps = {0.5: 0.06, 0.51: 0.04, 0.7: 0.05, 0.71: 0.04, 1.0: 0.06, 1.01: 0.07, 1.02: 0.03, 1.5: 0.03}
    chosen = random.choice([0.0, *heaps], n, p=[1 - sum(heaps.values()), *heaps.values()])
    carat = np.round(np.where(chosen > 0, chosen, smooth), 2)
    found = fit_codec(table(pl.DataFrame({"carat": carat}))).columns[0]
    assert set(found.atoms) - {found.scale.low} == set(heaps)
    for scale in (0.03, 0.1, 0.5):
        slope = np.round(random.exponential(scale, n) + 0.2, 2)
        assert set(atoms_of(slope)) <= ({slope.min()} if scale > 0.04 else set(np.unique(slope))), scale
    for spread in (3, 6, 12):
        assert atoms_of(np.round(random.normal(0, spread, n))) == ()


def test_a_small_count_keeps_the_share_of_each_of_its_frequent_values():
    # Narrower than the smooth part's knots: its frequent values are told apart.
    counts = np.random.default_rng(3).negative_binomial(0.5, 0.2, 5000)
    values, times = np.unique(counts, return_counts=True)
    assert set(values[times > 0.1 * len(counts)]) <= set(atoms_of(counts))


def atoms_of(values):
    return fit_codec(table(pl.DataFrame({"x": values}))).columns[0].atoms
