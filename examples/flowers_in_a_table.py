"""A table learned as a density: new flowers beside the old ones as a picture, and the flower that was mistyped."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from nablax.app import FlowDensity, plot_samples

flowers = pl.read_csv(Path(__file__).with_name("iris.csv"))
rows = flowers.drop("species").to_numpy()
order = np.random.default_rng(0).permutation(len(rows))
train, test = rows[order[:120]], rows[order[120:]]
density = FlowDensity(steps=1500, width=64, random_state=0).fit(train)

# Held-out flowers are as likely as the density promises, and more so than under a normal distribution.
mean, covariance = train.mean(axis=0), np.cov(train.T)
apart = test - mean
normal = -0.5 * np.sum(apart @ np.linalg.inv(covariance) * apart, axis=1)
normal -= 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
gain = density.score_samples(test) - normal
print(f"held-out flowers, this density   {density.score(test):6.2f} nats a row")
print(f"held-out flowers, one normal     {normal.mean():6.2f}")
print(f"gain                             {gain.mean():6.2f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.2f}")

# Someone types length and width of a sepal the wrong way round. Each value alone is nothing unusual.
mistyped = test[0, [1, 0, 2, 3]]
scores = density.score_samples(np.concatenate([test, mistyped[None]]))
print("\nthe least likely rows  sepal length  width  petal length  width   nats")
for row in np.argsort(scores)[:4]:
    cells = mistyped if row == len(test) else test[row]
    note = "  <- mistyped" if row == len(test) else ""
    print(f"{'':22}{cells[0]:13.1f}{cells[1]:7.1f}{cells[2]:14.1f}{cells[3]:7.1f}{scores[row]:7.1f}{note}")
assert np.argmin(scores) == len(test)

picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "flowers.png"
plot_samples(density.sample(300, random_state=0), against=rows).savefig(picture, dpi=110)
print(f"\npicture: {picture}")
