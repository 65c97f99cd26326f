"""A loss in, a drop-in for `jax.value_and_grad` out: gradients without a backward pass, through samples and choices.

Every estimator is ``estimate.X(loss, *, has_aux=False, ...)(params, *args, key=key) -> (value, grads)``. ``value`` is
the loss at ``params``; ``grads`` have the structure and dtypes of its inexact leaves. `nablax.follow.fit` and
`nablax.follow.train_step` take one as ``value_and_grad=``. Where a layer's own way back is another (feedback alignment,
straight-through kinds, a quantiser) what comes out is a model or a function to be put in the loss; where layers learn
alone, a loss for `jax.grad`.

Chambers:

- ``_composition``: backpropagation put together from parts: lenses, learners, circuits of bits.
- ``_discrete``: through binary and categorical draws, signs and spikes.
- ``_equilibrium``: networks that settle: by how they move when nudged, or by the condition of rest.
- ``_layers``: layers and losses whose backward pass is another than their own.
- ``_local``: local in time or space: what the weights have done to a recurrent state is carried along; errors that come
  back by other ways than the weights, or do not come back at all.
- ``_nested``: through what a program solves for, by the condition that the solution satisfies, and through a training.
- ``_perturbation``: directions drawn at random: forward mode, differences, guesses.
- ``_projection``: training as the search for a point that all constraints share.
- ``_text``: feedback in words on texts, and texts rewritten by it.
"""

from ._composition._boolean import boolean_lens
from ._composition._learner import Learner, learner
from ._composition._lens import Lens, identity_lens, reverse_lens
from ._discrete._bernoulli import smooth_times_stochastic, straight_through
from ._discrete._categorical import categorical_straight_through, gumbel, reinmax
from ._discrete._reste import rectified_order, rectified_straight_through
from ._discrete._score_function import score_function
from ._discrete._surrogate import Surrogate, spike
from ._discrete._vector_quantiser import Quantised, VectorQuantiser
from ._equilibrium._asymmetry import asymmetry_penalty
from ._equilibrium._equilibrium import Equilibrium, equilibrium_state
from ._equilibrium._equilibrium_gradient import equilibrium_gradient
from ._layers._metric import metric_loss
from ._layers._randomised_linear import RandomisedLinear
from ._local._bidirectional import Bidirectional
from ._local._direct_feedback import direct_feedback_alignment, init_direct_feedback
from ._local._feedback import feedback_alignment, init_feedback, kolen_pollack
from ._local._forward_forward import forward_forward, goodness
from ._local._knowledge import Knowledge, KnowledgeState, KnowledgeStep, knowledge_accumulation
from ._local._noprop import NoProp
from ._local._real_time import RealTime, RealTimeState, real_time
from ._local._rule_flipped import rule_flipped
from ._local._single_forward import VirtualNodes, single_forward, single_forward_classes, virtual_nodes
from ._nested._bound import HypergradientError, Smoothness
from ._nested._hypergradient import hypergradient
from ._nested._implicit import implicit
from ._nested._implicit_vjp import ImplicitError, implicit_vjp
from ._nested._metagradient import metagradient
from ._perturbation._average import average
from ._perturbation._finite_differences import gaussian_smoothing, spsa
from ._perturbation._forward_gradient import forward_gradient
from ._perturbation._guesses import guessed_gradient
from ._perturbation._reparametrised import LocationScale, reparametrised_gradient
from ._perturbation._seed_replay import SeededGradient, seed_replay
from ._projection._feasibility import feasibility
from ._text._chat import chat_engine
from ._text._textual_descent import TextualDescent, TextualDescentState, textual_descent
from ._text._textual_gradient import textual_gradient
from ._text._variable import TextVariable

__all__ = [
    "Bidirectional",
    "Equilibrium",
    "HypergradientError",
    "ImplicitError",
    "Knowledge",
    "KnowledgeState",
    "KnowledgeStep",
    "Learner",
    "Lens",
    "LocationScale",
    "NoProp",
    "Quantised",
    "RandomisedLinear",
    "RealTime",
    "RealTimeState",
    "SeededGradient",
    "Smoothness",
    "Surrogate",
    "TextVariable",
    "TextualDescent",
    "TextualDescentState",
    "VectorQuantiser",
    "VirtualNodes",
    "asymmetry_penalty",
    "average",
    "boolean_lens",
    "categorical_straight_through",
    "chat_engine",
    "direct_feedback_alignment",
    "equilibrium_gradient",
    "equilibrium_state",
    "feasibility",
    "feedback_alignment",
    "forward_forward",
    "forward_gradient",
    "gaussian_smoothing",
    "goodness",
    "guessed_gradient",
    "gumbel",
    "hypergradient",
    "identity_lens",
    "implicit",
    "implicit_vjp",
    "init_direct_feedback",
    "init_feedback",
    "knowledge_accumulation",
    "kolen_pollack",
    "learner",
    "metagradient",
    "metric_loss",
    "real_time",
    "rectified_order",
    "rectified_straight_through",
    "reinmax",
    "reparametrised_gradient",
    "reverse_lens",
    "rule_flipped",
    "score_function",
    "seed_replay",
    "single_forward",
    "single_forward_classes",
    "smooth_times_stochastic",
    "spike",
    "spsa",
    "straight_through",
    "textual_descent",
    "textual_gradient",
    "virtual_nodes",
]
