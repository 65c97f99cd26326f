"""Codes come back shaped as they went, scores are one a class, samples are rows of finite floats."""

import jax
import jax.numpy as jnp
import pytest

from nablax import diagnose

KEY = jax.random.key(0)
XS = jax.random.normal(KEY, (6, 4))


def encode(x):
    return x[:2]


def decode(z):
    return jnp.tile(z, 2)


def test_an_autoencoder_that_changes_the_shape_of_a_code_is_refused():
    """Each of these broadcasts against a code of two."""
    for broken in (lambda x: x[:1], lambda x: jnp.sum(x), lambda x: x[:2, None]):
        message = r"a decoded code, encoded again, that is shaped like f32\[2\], got"
        for use in (
            lambda e: diagnose.latent_field(e, decode)(0.0, jnp.ones(2), None),
            lambda e: diagnose.latent_attractors(e, decode, XS[:, :2]),
        ):
            with pytest.raises(ValueError, match=message):
                use(broken)
    with pytest.raises(ValueError, match=r"attractors of shape \[…, 2\], got f32\[6,1\]"):
        diagnose.trajectory_score(encode, decode, XS, XS[:, :1], steps=1)
    with pytest.raises(ValueError, match="steps as a whole number"):
        diagnose.trajectory_score(encode, decode, XS, XS[:, :2], steps=1.0)
    with pytest.raises(ValueError, match="encode, a function, got"):
        diagnose.latent_field(3.0, decode)


def test_scores_are_one_a_class():
    for scores in (lambda x: jnp.sum(x), lambda x: x[None]):
        with pytest.raises(ValueError, match=r"scores of shape \[classes\], got f32"):
            diagnose.smoothgrad(scores, XS, key=KEY)
        with pytest.raises(ValueError, match=r"scores of shape \[6, …\], got f32"):
            diagnose.class_sensitivity(lambda xs, labels: xs, scores, XS)
    with pytest.raises(ValueError, match="maps with leading axis 6, got"):
        diagnose.class_sensitivity(lambda xs, labels: xs[:1], lambda x: x, XS)


USES = {
    "smoothgrad": lambda xs: diagnose.smoothgrad(lambda x: x, xs, key=KEY),
    "class_sensitivity": lambda xs: diagnose.class_sensitivity(lambda xs, labels: xs, lambda x: x, xs),
    "latent_attractors": lambda xs: diagnose.latent_attractors(lambda x: x, lambda z: z, xs),
    "trajectory_score": lambda xs: diagnose.trajectory_score(lambda x: x, lambda z: z, xs, jnp.ones((1, 4)), steps=1),
    "model_distance": lambda xs: diagnose.model_distance(jnp.sum, jnp.sum, xs, jnp.zeros(4)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_samples_that_are_not_rows_of_finite_floats_are_refused(use):
    for xs, message in (
        (XS.at[4, 1].set(jnp.nan), "finite samples, got NaN or infinity in row 4"),
        (jnp.ones((6, 4), int), r"samples of real floating-point numbers, got i32\[6,4\]"),
        (jnp.ones((0, 4)), "non-empty leading axis"),
    ):
        with pytest.raises(ValueError, match=message):
            use(xs)


def test_a_seed_is_no_key():
    with pytest.raises(ValueError, match="a random key"):
        diagnose.smoothgrad(lambda x: x, XS, key=0)
    with pytest.raises(ValueError, match="draws as a whole number"):
        diagnose.smoothgrad(lambda x: x, XS, key=KEY, draws=2.5)


def test_a_score_of_another_shape_is_refused():
    for score in (lambda x: jnp.sum(x), lambda x: x[:1]):
        with pytest.raises(ValueError, match=r"a table of scores that is shaped like f32\[12,4\], got"):
            diagnose.feature_shift(XS, XS + 1, score=score, key=KEY)
    with pytest.raises(ValueError, match="a random key"):
        diagnose.feature_shift(XS, XS + 1, key=0)
    for count in (18, 100.0):
        with pytest.raises(ValueError, match="permutations as a whole number, at least 19"):
            diagnose.feature_shift(XS, XS + 1, permutations=count, key=KEY)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (jnp.ones(6), r"labels of whole numbers, got f32\[6\]\. Number the classes from 0"),
        (jnp.ones(5, int), "leading axis|labels of shape"),
        (jnp.ones((6, 1), int), r"labels of shape \[6\], got i32\[6,1\]"),
        (jnp.arange(6), "labels from 0 to 3, got 4. Count from 0"),
        (-jnp.ones(6, int), "labels from 0 to 3, got -1"),
    ],
)
def test_labels_are_whole_numbers_one_a_sample(labels, message):
    with pytest.raises(ValueError, match=message):
        diagnose.smoothgrad(lambda x: x, XS, labels, key=KEY)


def test_labels_of_a_layers_maps_are_whole_numbers():
    with pytest.raises(ValueError, match=r"labels of whole numbers, got f32\[6\]"):
        diagnose.normgrad(lambda x: jnp.outer(x, x), lambda hidden: jnp.sum(hidden, axis=0), XS, jnp.ones(6))


def test_images_and_their_deformations_fit_together():
    image = jnp.ones((4, 5, 1))
    for wrong, message in (
        (jnp.ones((4, 5)), r"an image of shape \[…, …, …\], got f32\[4,5\]\. Give a grey one an axis"),
        (jnp.ones((1, 4, 5, 1)), "an image of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            diagnose.deform(wrong, jnp.ones((4, 5, 2)))
    for shape in ((4, 5), (4, 5, 1), (1, 1, 2), (2,), (5, 4, 2)):
        with pytest.raises(ValueError, match=r"a displacement of shape \[4, 5, 2\], got f32"):
            diagnose.deform(image, jnp.ones(shape))


def test_boxes_have_two_bounds_of_one_shape_and_a_label_each():
    layers, lower, labels = [lambda x: x.ravel()], jnp.zeros((2, 3, 3, 1)), jnp.ones(2, int)
    for upper in (jnp.ones((2, 3, 3, 2)), jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1))):
        with pytest.raises(ValueError, match=r"upper, images of shape \[2, 3, 3, 1\], got f32"):
            diagnose.box_margins(layers, lower, upper, labels)
    with pytest.raises(ValueError, match=r"images of shape \[…, …, …, …\], got f32\[3,3,1\]"):
        diagnose.box_margins(layers, lower[0], lower[0], labels)
    for wrong in (jnp.ones(3, int), jnp.ones(2)):
        with pytest.raises(ValueError, match="expected labels of"):
            diagnose.box_margins(layers, lower, lower, wrong)
