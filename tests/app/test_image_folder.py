"""From a folder of pictures in two sub-folders to pictures of the one that is asked for."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from nablax.app._cli import app
from nablax.app._runs._run import load


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.exception
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bars that lie and bars that stand, bright on dark with some noise, 6×6."""
    where = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(120):
        label = "lying" if number % 2 else "standing"
        picture = random.integers(0, 60, (6, 6))
        at = random.integers(1, 5)
        if number % 2:
            picture[at] += 180
        else:
            picture[:, at] += 180
        (where / "data" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(where / "data" / label / f"{number}.png")
    flags = ["--network", "mlp", "--width", "128", "--depth", "2", "--steps", "2000", "--batch-size", "64"]
    call("learn", where / "data", "--condition", "label", "--out", where / "run", *flags)
    return where


def test_pictures_of_the_label_asked_for(folder):
    right = []
    for label, axis in (("lying", 1), ("standing", 0)):
        out = folder / f"{label}.npz"
        call("sample", folder / "run", "-n", 40, "-c", f"label={label}", "-o", out)
        with np.load(out, allow_pickle=False) as drawn:
            images = drawn["image"].astype(float)[..., 0]
            assert images.shape == (40, 6, 6) and drawn["image"].dtype == np.uint8
            assert set(drawn["label"]) == {label}
        # A bar along an axis: the brightest line's mean stands out along that axis and not across it.
        along = images.mean(axis=2 if axis else 1).max(axis=1)
        across = images.mean(axis=1 if axis else 2).max(axis=1)
        right.append(np.mean(along > across))
    assert min(right) > 0.8


def test_a_grid_of_samples_and_scores(folder):
    call("sample", folder / "run", "-n", 16, "-o", folder / "grid.png")
    with Image.open(folder / "grid.png") as grid:
        assert min(grid.size) > 20
    call("score", folder / "run", folder / "data", "--bits", "--draws", "2", "-o", folder / "scored.csv")
    import polars as pl

    scored = pl.read_csv(folder / "scored.csv")
    assert len(scored) == 120 and "label" in scored.columns
    # Uniform pixels would cost 8 bits; these have noise of about 60 levels, so about 6.
    assert 4.0 < scored["bits_per_dimension"].mean() < 7.9
    assert load(folder / "run").config.kind == "images"
