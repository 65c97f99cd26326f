"""Tables and files that the tests of the data side share."""

import datetime

import numpy as np
import polars as pl


def mixed(n=400, seed=0, missing=0.1):
    """One column of every kind; `missing` of the cells of three of them are null."""
    random = np.random.default_rng(seed)
    day = datetime.date(2020, 1, 1)
    frame = pl.DataFrame(
        {
            "length": random.normal(10.0, 2.0, n),
            "count": random.integers(-3, 40, n),
            "tenths": np.round(random.normal(size=n), 1),
            "colour": random.choice(["red", "green", "blue"], n),
            "flag": random.random(n) < 0.3,
            "day": [day + datetime.timedelta(days=int(k)) for k in random.integers(0, 400, n)],
            "price": np.exp(2.0 * random.normal(size=n)),
            "visits": np.floor(np.exp(1.5 * random.normal(size=n))).astype(np.int32),
            "name": [f"u{k}" for k in range(n)],
            "size": pl.Series(random.choice(["S", "M", "L"], n), dtype=pl.Enum(["S", "M", "L"])),
        }
    )
    holes = [
        pl.when(pl.Series(random.random(n) < missing)).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("length", "count", "colour")
    ]
    return frame.with_columns(holes) if missing else frame
