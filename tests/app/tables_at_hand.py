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


def days(numbers):
    return [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(k)) for k in numbers]


def bills(rows=300, seed=0):
    """Bills: what they come to, what share is tax, when they were sent and paid, and where to."""
    random = np.random.default_rng(seed)
    net, tax = np.round(random.gamma(3.0, 20.0, rows), 2), np.round(random.gamma(2.0, 9.0, rows), 2)
    sent, late, town = random.integers(0, 700, rows), random.integers(0, 90, rows), random.integers(0, 12, rows)
    return pl.DataFrame(
        {
            "net": net,
            "tax": tax,
            "total": np.round(net + tax, 2),
            "percent": np.round(100.0 * tax / np.round(net + tax, 2), 1),
            "sent": days(sent),
            "paid": days(sent + late),
            "postcode": [f"P{k}" for k in town],
            "town": [f"T{k // 3}" for k in town],
        }
    )
