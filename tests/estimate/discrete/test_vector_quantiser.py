"""The quantiser's derivatives term by term, its invariance to affine maps of the data, its steps and restarts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nablax import estimate

pytestmark = pytest.mark.usefixtures("x64")
DRAWS = np.random.default_rng(0)
Z = DRAWS.normal(size=(30, 3))
G = DRAWS.normal(size=(30, 3))


def quantiser(**options):
    made = estimate.VectorQuantiser(3, 8, **options, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), made)


def nearest(vectors, z):
    return np.argmin(np.sum((np.asarray(z)[:, None] - np.asarray(vectors)[None]) ** 2, axis=2), axis=1)


def test_each_row_gets_its_nearest_code_also_far_from_the_origin():
    made = quantiser()
    found = jax.jit(lambda q, z: q(z))(made, Z)
    np.testing.assert_array_equal(found.codes, nearest(made.codebook, Z))
    np.testing.assert_array_equal(found.output, made.codebook[found.codes])
    single = estimate.VectorQuantiser(3, 8, key=jax.random.key(0))
    far = eqx.tree_at(lambda q: q.codebook, single, single.codebook + 1000)
    z = np.asarray(Z, np.float32) + np.float32(1000)
    np.testing.assert_array_equal(far(jnp.asarray(z)).codes, nearest(far.codebook, z))


@pytest.mark.parametrize("synced", [0.0, 2.0])
def test_the_output_has_the_identity_for_the_rows_and_synced_times_a_choice_for_the_codes(synced):
    made = quantiser(synced=synced)
    of_codes, of_rows = jax.grad(lambda q, z: jnp.sum(q(z).output * G), argnums=(0, 1))(made, Z)
    chosen = nearest(made.codebook, Z)
    np.testing.assert_array_equal(of_rows, G)
    expected = np.zeros((8, 3))
    np.add.at(expected, chosen, synced * G)
    np.testing.assert_allclose(of_codes.codebook, expected, atol=1e-12)


def test_the_loss_has_the_authors_weights_on_either_side():
    made = quantiser(commitment=0.8)
    of_codes, of_rows = jax.grad(lambda q, z: q(z).loss, argnums=(0, 1))(made, Z)
    chosen = nearest(made.codebook, Z)
    apart = Z - np.asarray(made.codebook)[chosen]
    np.testing.assert_allclose(of_rows, 0.2 * 2 * apart / Z.size, atol=1e-12)
    expected = np.zeros((8, 3))
    np.add.at(expected, chosen, -0.8 * 2 * apart / Z.size)
    np.testing.assert_allclose(of_codes.codebook, expected, atol=1e-12)
    assert float(made(Z).loss) == pytest.approx(np.mean(apart**2))


def test_affine_codes_follow_an_affine_map_of_the_data_and_move_unused_codes_too():
    made = quantiser(affine_rate=2.0)
    stretched, moved = np.array([3.0, 3.0, 3.0]), np.array([5.0, -1.0, 0.5])
    following = eqx.tree_at(lambda q: (q.scale, q.shift), made, ((stretched[None] - 1) / 2, moved[None] / 2))
    np.testing.assert_allclose(following.vectors(), np.asarray(made.codebook) * stretched + moved, atol=1e-12)
    np.testing.assert_array_equal(following(Z * stretched + moved).codes, made(Z).codes)
    # One step of descent on the loss: with the affine part all codes go, without it only those that were chosen.
    unused = np.setdiff1d(np.arange(8), np.asarray(made(Z[:2]).codes))
    for rate, goes in ((2.0, True), (0.0, False)):
        one = quantiser(affine_rate=rate)
        grads = jax.grad(lambda q: q(Z[:2]).loss)(one)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, one, grads)
        assert bool(jnp.any(after.vectors()[unused] != one.vectors()[unused])) == goes
    two = quantiser(affine_rate=1.0, groups=2)
    two = eqx.tree_at(lambda q: q.shift, two, jnp.array([[1.0, 0, 0], [0, 0, 0]]))
    np.testing.assert_allclose(two.vectors()[4:], two.codebook[4:], atol=1e-12)
    np.testing.assert_allclose(two.vectors()[:4, 0], two.codebook[:4, 0] + 1, atol=1e-12)


def test_an_alternated_step_moves_codes_to_the_mean_of_their_rows_and_hands_the_encoder_the_new_ones():
    made = quantiser()
    chosen = nearest(made.codebook, Z)
    used, counts = np.unique(chosen, return_counts=True)
    found, newer = jax.jit(lambda q, z: q.alternated(z, rate=1.0))(made, Z)
    for code, count in zip(used, counts):
        share = 2 * count / Z.size
        mean = Z[chosen == code].mean(0)
        np.testing.assert_allclose(newer.codebook[code], (1 - share) * made.codebook[code] + share * mean, atol=1e-12)
    np.testing.assert_array_equal(found.codes, chosen)
    np.testing.assert_allclose(found.output, newer.codebook[chosen], atol=1e-12)
    slope = jax.grad(lambda q: jnp.sum(q.alternated(Z)[0].output))(made)
    assert not np.any(slope.codebook)


def test_codes_that_nothing_chooses_are_put_on_rows():
    made = quantiser(affine_rate=2.0)
    made = eqx.tree_at(lambda q: (q.scale, q.shift), made, (made.scale + 0.3, made.shift - 2))
    used = jnp.zeros(8, bool).at[made(Z).codes].set(True)
    assert 0 < int(used.sum()) < 8
    after = made.revived(Z, used, key=jax.random.key(1))
    for code in range(8):
        if used[code]:
            np.testing.assert_array_equal(after.codebook[code], made.codebook[code])
        else:
            assert np.min(np.abs(np.asarray(after.vectors()[code]) - Z).max(1)) < 1e-12


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_output_is_of_the_rows_type(dtype):
    found = estimate.VectorQuantiser(3, 8, synced=1.0, key=jax.random.key(0))(jnp.asarray(Z, dtype))
    assert found.output.dtype == dtype


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quantiser(commitment=2.0), "a commitment from 0 to 1"),
        (lambda: quantiser(synced=-1.0), "0 or more"),
        (lambda: quantiser(groups=3), "equally many"),
        (lambda: estimate.VectorQuantiser(3, 0, key=jax.random.key(0)), "codes as a whole"),
        (lambda: estimate.VectorQuantiser(3, 2, key=0), "a random key"),
        (lambda: quantiser()(Z[0]), "z of shape"),
        (lambda: quantiser()(Z[:, :2]), "z of shape"),
        (lambda: quantiser()(np.ones((2, 3), int)), "floating"),
        (lambda: quantiser().revived(Z, jnp.ones(3, bool), key=jax.random.key(0)), "used"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
