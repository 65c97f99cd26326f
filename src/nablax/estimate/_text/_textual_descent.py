"""Texts rewritten by what was said of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from ..._core import check_callable, check_count, described, fault
from ._textual_gradient import Feedback
from ._variable import Engine, TextVariable, answer, check_texts

_START, _END = "<improved>", "</improved>"

_REWRITE = """Improve a text by the feedback on it. Change what the feedback asks for and nothing else.

<text role="{role}">
{value}
</text>

<feedback>
{feedback}
</feedback>
{more}
Write the improved text, whole, between {start} and {end}, and nothing else between them."""

_CONSTRAINTS = """
It has to keep to all of these:

<constraints>
{constraints}
</constraints>
"""

_PAST = """
Earlier versions, the oldest first; where they come to the same fault again, go further away from them:

{past}
"""


class TextualDescentState(NamedTuple):
    """What rewriting remembers.

    Attributes:
        past: of each parameter, in the order of the tree's leaves, its last values, the oldest first.
        result: of each, what the last update did: "rewritten", "no feedback", or "no tags: …" with the answer, in which
            the improved text was not found, and the value was kept.
    """

    past: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


class TextualDescent(NamedTuple):
    """A rule that rewrites texts.

    Attributes:
        init: ``init(params) -> state``.
        update: ``update(grads, state, params) -> (params, state)``.
    """

    init: Callable[[Any], TextualDescentState]
    update: Callable[[Any, TextualDescentState, Any], tuple[Any, TextualDescentState]]


def textual_descent(engine: Engine, *, constraints: Sequence[str] = (), momentum: int = 0) -> TextualDescent:
    """Rewrite texts by the feedback on them, one call of an engine each.

    Args:
        engine: ``prompt -> answer``, who rewrites.
        constraints: in words, that every text has to keep to.
        momentum: how many earlier values the engine is shown, 0 by default.

    Returns:
        A rule: texts are replaced, not added to, so that ``update`` returns the parameters themselves.

    Raises:
        ValueError: an argument makes no sense; when called: parameters that are no learnable texts, feedback of another
            tree.

    Example:
        >>> from nablax import estimate
        >>> engine = lambda prompt: "<improved>catamaran</improved>"
        >>> rule = estimate.textual_descent(engine)
        >>> params = {"word": estimate.TextVariable("cat", role="a word", learnable=True)}
        >>> params, state = rule.update({"word": ("Make it longer.",)}, rule.init(params), params)
        >>> params["word"].value, state.result
        ('catamaran', ('rewritten',))

    Cost: a call for each parameter with feedback.

    References:
        - Yuksekgonul et al. (2024), https://arxiv.org/abs/2406.07496, and its code (the rule; prompts are ours; there
          an answer without tags ends the run)
    """
    check_callable(engine, what="engine", fix="Pass a function of a prompt that returns the answer, a str.")
    check_count(momentum, what="momentum", least=0)
    if isinstance(constraints, str) or not all(isinstance(one, str) for one in constraints):
        raise fault(expected="constraints, a list of texts", got=repr(constraints), fix="Put them into a list.")

    def init(params: Any) -> TextualDescentState:
        leaves = jax.tree.leaves(params)
        check_texts(params, leaves)
        return TextualDescentState(((),) * len(leaves), ("",) * len(leaves))

    def update(grads: Any, state: TextualDescentState, params: Any) -> tuple[Any, TextualDescentState]:
        leaves, structure = jax.tree.flatten(params)
        check_texts(params, leaves)
        given = jax.tree.leaves(grads, is_leaf=_is_feedback)
        if not (len(given) == len(leaves) == len(state.past) and all(_is_feedback(one) for one in given)):
            raise fault(
                expected=f"feedback on {len(leaves)} texts, a tuple of texts each",
                got=described(grads),
                fix="Pass what textual_gradient returns for these parameters.",
            )
        rewritten, past, results = [], [], []
        for variable, feedback, before in zip(leaves, given, state.past):
            value, result = _rewritten(variable, feedback, before)
            rewritten.append(dataclasses.replace(variable, value=value))
            past.append((*before, variable.value)[-momentum:] if momentum and result == "rewritten" else before)
            results.append(result)
        return jax.tree.unflatten(structure, rewritten), TextualDescentState(tuple(past), tuple(results))

    def _rewritten(variable: TextVariable, feedback: Feedback, before: tuple[str, ...]) -> tuple[str, str]:
        if not feedback:
            return variable.value, "no feedback"
        more = _CONSTRAINTS.format(constraints="\n".join(f"- {one}" for one in constraints)) if constraints else ""
        if before:
            more += _PAST.format(past="\n\n".join(f"<version>\n{one}\n</version>" for one in before))
        prompt = _REWRITE.format(
            role=variable.role,
            value=variable.value,
            feedback="\n\n".join(feedback),
            more=more,
            start=_START,
            end=_END,
        )
        said = answer(engine, prompt)
        _, opened, rest = said.partition(_START)
        improved, closed, _ = rest.rpartition(_END)
        if not (opened and closed):
            return variable.value, f"no tags: {said}"
        return improved.strip(), "rewritten"

    return TextualDescent(init, update)


def _is_feedback(value: Any) -> bool:
    return isinstance(value, tuple) and not hasattr(value, "_fields") and all(isinstance(one, str) for one in value)


__all__ = ["TextualDescent", "TextualDescentState", "textual_descent"]
