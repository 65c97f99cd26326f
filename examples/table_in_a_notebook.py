"""A table's model in a few lines: new flowers, holes filled, the unlikely row found, and the report's verdict."""

import html
import re
import sys
from pathlib import Path

import polars as pl

from nablax.app import Table

flowers = pl.read_csv(Path(__file__).with_name("iris.csv"))
table = Table.learn(flowers, steps=1000, width=64, report="full", quiet=True)
print(table)

# New flowers of one species.
setosa = table.sample(200, condition={"species": "setosa"})
means = pl.concat([flowers.filter(species="setosa").mean(), setosa.mean()]).drop("species")
print("\nmeans of setosa, measured and drawn")
print(means.with_columns(pl.selectors.numeric().round(2)))

# A row whose sepal was typed the wrong way round, among others.
asked = flowers[::15].with_columns(note=pl.lit(""))
mistyped = asked[:1].with_columns(sepal_length="sepal_width", sepal_width="sepal_length", note=pl.lit("mistyped"))
scored = table.score(pl.concat([asked, mistyped])).sort("outlier_rank")
print("\nthe least likely rows")
print(scored.select("species", "sepal_length", "sepal_width", "log_likelihood_nats", "note").head(3))
assert scored["note"][0] == "mistyped"

# Holes are filled by draws given the other cells.
holes = asked.drop("note").with_columns(petal_length=pl.lit(None, pl.Float64))
filled = table.complete(holes)
print("\npetal lengths, filled in and true")
print(filled.select("species", "petal_length", "petal_length_spread").with_columns(true=asked["petal_length"]))

# In a notebook the report is shown beneath the cell; it is a file that opens offline.
page = table.report()
said = re.search(r'<div class="verdict.*?<p>(.*?)</p>', page.path.read_text(), re.DOTALL).group(1)
print("\n" + html.unescape(re.sub(r"<[^>]+>", "", said)))
if len(sys.argv) > 1:
    page.path.rename(sys.argv[1])
