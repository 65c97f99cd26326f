"""Images come back as they were, and their likelihood is that of whole-numbered pixels."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from nablax.app._data._images import ImageCodec, fit_image_codec
from nablax.app._data._sources import read, table
from nablax.app._errors import UserError


def frame_of(images, **columns):
    return pl.DataFrame({"image": images, **columns})


@functools.lru_cache
def jitted(codec):
    return jax.jit(codec.dequantise)


def dequantise(codec, base, seed=0):
    return jitted(codec)(jnp.asarray(base), jax.random.key(seed))


def test_digits_come_back_exactly():
    source = read("digits")
    codec = fit_image_codec(source, condition=["label"])
    assert (codec.shape, codec.dim, codec.cells, codec.levels, codec.condition_dim) == ((8, 8, 1), 64, 64, 17, 10)
    codec = ImageCodec.from_json(codec.to_json())
    base, condition = codec.encode(source.frame)
    y, correction = dequantise(codec, base)
    assert y.shape == (1797, 8, 8, 1) and y.dtype == jnp.float32 and base.dtype == np.uint8
    assert -1.0 <= float(y.min()) < -0.99 and 0.99 < float(y.max()) <= 1.0
    np.testing.assert_allclose(correction, 64 * math.log(2 / 17), rtol=1e-5)
    assert codec.decode(y, condition).equals(source.frame)
    assert codec.out_of_range(y)["image"] == 0.0 and codec.out_of_range(1.5 * y)["image"] > 0.1


@pytest.mark.parametrize("levels", [2, 17, 256, 1000])
def test_every_level_survives_rounding(levels):
    pixels = np.arange(levels).repeat(64).reshape(-1, 8, 8, 1).astype(np.uint8 if levels <= 256 else np.uint16)
    codec = ImageCodec((8, 8, 1), pixels.dtype.name, levels, 0.0, levels - 1.0)
    base, _ = codec.encode(frame_of(pixels))
    for seed in range(5):
        np.testing.assert_array_equal(codec.decode(dequantise(codec, base, seed)[0])["image"].to_numpy(), pixels)


def test_bits_are_those_of_whole_numbered_pixels():
    # A density that is uniform on [-1, 1]: each of the 2^k levels has probability 2^-k, so k bits a pixel.
    for bits in (1, 4, 8):
        codec = ImageCodec((1, 1, 1), "uint8", 2**bits, 0.0, 2.0**bits - 1)
        pixels = np.arange(2**bits, dtype=np.uint8).reshape(-1, 1, 1, 1)
        _, correction = dequantise(codec, codec.encode(frame_of(pixels))[0])
        np.testing.assert_allclose((math.log(2.0) - correction) / math.log(2.0), bits, atol=2e-4)


def test_probabilities_of_all_levels_sum_to_one():
    codec = ImageCodec((1, 1, 1), "uint8", 17, 0.0, 16.0)
    base = np.arange(-40, 60, dtype=np.float32).repeat(2000).reshape(-1, 1, 1, 1)  # levels beyond the range as well
    y, correction = dequantise(codec, base)
    density = np.exp(-0.5 * np.square(y[:, 0, 0, 0]) - 0.5 * math.log(2 * math.pi) + correction)
    assert density.mean() * 100 == pytest.approx(1.0, abs=1e-3)


def test_float_images_and_constant_pixels():
    images = np.random.default_rng(0).normal(3.0, 0.1, (50, 4, 4, 3)).astype(np.float32)
    images[:, 0, 0] = 3.0
    codec = fit_image_codec(table(frame_of(images)))
    assert codec.levels == 0 and not codec.noisy
    base, _ = codec.encode(frame_of(images))
    y, correction = dequantise(codec, base)
    assert (float(y.min()), float(y.max())) == (-1.0, 1.0)
    np.testing.assert_allclose(correction, 48 * math.log(2 / (images.max() - images.min())), rtol=1e-4)
    np.testing.assert_allclose(codec.decode(y)["image"].to_numpy(), images, rtol=1e-5)


def test_levels_are_chosen_from_the_data():
    def levels(array):
        return fit_image_codec(table(frame_of(array))).levels

    random = np.random.default_rng(0)
    assert levels(random.integers(0, 200, (30, 4, 4, 1), dtype=np.uint8)) == 256
    assert levels(np.clip(random.integers(0, 99, (30, 4, 4, 1)), 0, 16)) == 17
    assert levels(random.integers(0, 2, (30, 4, 4, 1), dtype=np.uint8)) == 2
    with pytest.raises(UserError, match="within 0 and 65535"):
        levels(random.integers(-3, 4, (30, 4, 4, 1)))
    with pytest.raises(UserError, match="all pixels of all images are equal"):
        levels(np.zeros((30, 4, 4, 1), np.uint8))


def test_other_images_are_refused():
    codec = ImageCodec((4, 4, 1), "uint8", 17, 0.0, 16.0)
    for array, message in [
        (np.zeros((2, 4, 5, 1), np.uint8), "4×5×1, the model's are 4×4×1"),
        (np.full((2, 4, 4, 1), 17, np.uint8), "whole numbers from 0 to 16"),
        (np.full((2, 4, 4, 1), 0.5, np.float32), "whole numbers from 0 to 16"),
    ]:
        with pytest.raises(UserError, match=message):
            codec.encode(frame_of(array))
    with pytest.raises(UserError, match="these data are none"):
        codec.encode(pl.DataFrame({"x": [1, 2]}))


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for k in range(12):
            pixels = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / label / f"{k:02}.png")
    return tmp_path / "pets"


def test_a_folder_of_pictures_with_labels(folder):
    from PIL import Image

    source = read(folder, condition=["label"])
    assert source.kind == "images" and source.name == "pets" and source.rows == 24
    assert source.frame["image"].dtype.shape == (6, 9, 3)
    assert source.frame["label"].to_list() == ["cat"] * 12 + ["dog"] * 12
    with Image.open(folder / "dog" / "03.png") as picture:
        np.testing.assert_array_equal(source.frame["image"][15].to_numpy(), np.asarray(picture))
    codec = fit_image_codec(source, condition=["label"])
    base, condition = codec.encode(source.frame)
    assert codec.decode(dequantise(codec, base)[0], condition).equals(source.frame)
    streamed = read(folder, memory_limit=1)
    assert pl.concat(list(streamed.batches(7))).equals(source.frame)
    assert fit_image_codec(streamed, condition=["label"]) == codec


def test_pictures_are_cut_at_their_centre_and_resized(tmp_path):
    from PIL import Image

    striped = np.zeros((10, 30), np.uint8)
    striped[:, 10:20] = 200
    for k in range(20):
        Image.fromarray(np.pad(striped, ((0, k % 2), (0, 0)), mode="edge")).save(tmp_path / f"{k}.png")
    with pytest.raises(UserError, match="different sizes"):
        read(tmp_path)
    images = read(tmp_path, image_size=5).frame["image"].to_numpy()
    assert images.shape == (20, 5, 5, 1)
    np.testing.assert_array_equal(images[0], 200)


def test_palettes_transparency_and_sixteen_bits(tmp_path):
    from PIL import Image

    colour = Image.fromarray(np.full((4, 4, 3), (10, 200, 30), np.uint8))
    for k in range(20):
        picture = [colour, colour.convert("RGBA"), colour.quantize(4)][k % 3]
        picture.save(tmp_path / f"{k}.png")
    images = read(tmp_path).frame["image"].to_numpy()
    assert images.shape == (20, 4, 4, 3) and np.all(images == np.array([10, 200, 30]))
    deep = tmp_path / "deep"
    deep.mkdir()
    for k in range(20):
        Image.fromarray(np.full((4, 4), 65_535 - 257 * k, np.uint16)).save(deep / f"{k:02}.png")
    images = read(deep).frame["image"].to_numpy()
    np.testing.assert_array_equal(images[:, 0, 0, 0], 255 - np.arange(20))
