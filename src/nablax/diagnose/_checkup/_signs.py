"""What levels and risk are judged from: a few numbers of a check-up, each without unit."""

from typing import NamedTuple

# Said where it is not known.
TO_TELL = "With chance=, the loss of a model that knows nothing, it could be told."


class Signs(NamedTuple):
    """Numbers without unit; NaN where not known.

    Attributes:
        chance: loss over that of a model that knows nothing.
        ratio: top eigenvalue over the threshold.
        change: of the loss by the step, as a share of the loss.
        surely: the same change over its standard error.
        holds: multiple of the step up to which its quadratic model holds.
        furthest: tested multiple of the step with the lowest loss.
        rise: change of the loss over the rehearsal, as a share of the loss.
        heart: change of the loss of the rows that are stepped on, as a share of the loss.
        late: the same change over the second half of the rehearsal.
        best: multiple of the rate that rehearses best; 1 where no other was tried.
        gain: by how much lower the loss ends there, as a share.
        noise: noise scale over batch size; its lower bound where noise hides it.
        tail: longest gradient of a row over the median one.
        elasticity: of matrices that are not zero, the largest relative change of the loss by a relative change.
        faint: smallest gradient of a parameter over the median one, and
        loud: the largest.
        dead: largest share of dead units in a layer.
        cut: share of the elements that are to move which get no gradient, now or after the rehearsal.
        mute: share of the elements that stand still for want of a gradient, now and after the rehearsal, and leave the
            loss as it is where they are changed: behind dead units, not frozen.
        moved: largest change of a matrix by the step, relative to it.
        cosine: the lowest between gradients of losses that is resolved.
        paying: whether the step raises one of these.
        lost: share of the step that rounding takes.
        decades: of the loss's sensitivity to the first position of a sequence over that to the last.
        decay: share of the threshold that decay takes.
        slope: of the loss along the step, as a share of the loss.
        radius: of the softmax's series, in steps.
        uphill: cosine between the step and the gradient of its batch, above 0 where the step raises the loss; known
            only where no moments of steps before bear on it.
        growth: how many times as long its schedule makes the step within 200 steps.
        fresh: 1 where the optimiser's moments are all zero, as before its first step; 0 elsewhere and without moments.
    """

    chance: float
    ratio: float
    change: float
    surely: float
    holds: float
    furthest: float
    rise: float
    heart: float
    late: float
    best: float
    gain: float
    noise: float
    tail: float
    elasticity: float
    faint: float
    loud: float
    dead: float
    cut: float
    mute: float
    moved: float
    cosine: float
    paying: float
    lost: float
    decades: float
    decay: float
    slope: float
    radius: float
    fresh: float
    uphill: float
    growth: float
