"""Backpropagation of feedback through a graph of texts."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..._core import check_callable, described, fault
from ._variable import Engine, TextVariable, answer, check_texts

Feedback = tuple[str, ...]

_CRITICISM = """You help to improve a text by feedback. Something was made from it; say how the text should change so \
that what was made gets better.

<text role="{role}">
{value}
</text>

An engine was asked, with this text as a part of its prompt:

<prompt>
{prompt}
</prompt>

and answered:

<answer role="{answer_role}">
{answer}
</answer>

{aim}

Give concrete feedback on the text alone, in a few sentences. Do not write a new version of it."""

_AIM_LAST = "The answer is a judgement of what went into it. The text is to change so that the judgement gets better."
_AIM_CHAIN = """Feedback on the answer was:

<feedback>
{feedback}
</feedback>

The text is to change so that the answer gets better in the sense of this feedback."""

_SUMMARY = """Several pieces of feedback were given on one text. Put them together: keep every concrete point, say \
once what is said several times, and say where they contradict one another.

<text role="{role}">
{value}
</text>

{feedback}"""


def textual_gradient(
    loss: Callable[..., TextVariable | Sequence[TextVariable]], *, engine: Engine, summarise: bool = False
) -> Callable[..., tuple[str, Any]]:
    """Feedback on texts in place of a gradient: the chain rule, in words.

    From the loss back, in reverse topological order, an engine is asked for each text that something was made from: how
    should this change, given what was made from it, and the feedback on that? What is used several times gets several
    pieces, in order of use; several losses, of a batch, are gone through one after the other. Texts from which no
    parameter can be reached are not asked about. The prompts depend on nothing but the graph, so that an engine that is
    a function gives the same feedback every time.

    Args:
        loss: ``loss(params, *args)``, a `TextVariable` that was made from the parameters and judges them, or several.
        engine: ``prompt -> answer``, who gives the feedback.
        summarise: have several pieces on one parameter put together by the engine, with one more call; else they stay
            as they are.

    Returns:
        ``(params, *args) -> (value, grads)``: the judgement, of a batch joined by empty lines, and feedback in the
        parameters' tree, a tuple of texts each, empty for one that the loss does not depend on.

    Raises:
        ValueError: an argument makes no sense; when called: parameters that are no learnable texts, a loss that returns
            something else, an engine that does not answer with a text.

    Example:
        >>> from nablax import estimate
        >>> def loss(params):
        ...     return estimate.TextVariable.asked(len_of, "{word}", role="its length", word=params["word"])
        >>> len_of = lambda prompt: f"{len(prompt)} letters, too few"
        >>> critic = lambda prompt: "Make it longer."
        >>> params = {"word": estimate.TextVariable("cat", role="a word", learnable=True)}
        >>> estimate.textual_gradient(loss, engine=critic)(params)
        ('3 letters, too few', {'word': ('Make it longer.',)})

    Cost: a call of the engine for each edge that leads to a parameter, and one for each summary.

    References:
        - Yuksekgonul et al. (2024), https://arxiv.org/abs/2406.07496, and its code (the passes; the prompts are ours)
    """
    check_callable(loss, what="loss", fix="Pass loss(params, *args) -> TextVariable.")
    check_callable(engine, what="engine", fix="Pass a function of a prompt that returns the answer, a str.")

    def value_and_grad(params: Any, *args: Any) -> tuple[str, Any]:
        leaves, structure = jax.tree.flatten(params)
        check_texts(params, leaves)
        found = loss(params, *args)
        losses = [found] if isinstance(found, TextVariable) else found
        if not (isinstance(losses, list | tuple) and losses and all(isinstance(one, TextVariable) for one in losses)):
            raise fault(
                expected="a loss that returns a TextVariable, or a list of them",
                got=described(found),
                fix="Make it by estimate.TextVariable.asked.",
            )
        collected: dict[int, list[str]] = {id(leaf): [] for leaf in leaves}
        for one in losses:
            for variable, feedback in _backward(one, engine).items():
                collected.setdefault(variable, []).extend(feedback)
        grads = [tuple(collected[id(leaf)]) for leaf in leaves]
        if summarise:
            grads = [_summary(engine, leaf, pieces) for leaf, pieces in zip(leaves, grads)]
        return "\n\n".join(one.value for one in losses), jax.tree.unflatten(structure, grads)

    return value_and_grad


def _backward(last: TextVariable, engine: Engine) -> dict[int, list[str]]:
    """Feedback on every text behind one, by the text's id, in order of use."""
    order = _parents_first(last)
    place = {id(variable): number for number, variable in enumerate(order)}
    needed: set[int] = set()
    for variable in order:
        if variable.learnable or any(id(parent) in needed for parent in variable.parents):
            needed.add(id(variable))
    # By the place of what was made and of the parent in it: order of use, not of the way back.
    pieces: dict[int, dict[tuple[int, int], str]] = {id(variable): {} for variable in order}

    def of(variable: TextVariable) -> list[str]:
        return [text for _, text in sorted(pieces[id(variable)].items())]

    for made in reversed(order):
        aim = _AIM_LAST if made is last else _AIM_CHAIN.format(feedback="\n".join(of(made)))
        for number, parent in enumerate(made.parents):
            if id(parent) in needed:
                prompt = _CRITICISM.format(
                    role=parent.role,
                    value=parent.value,
                    prompt=made.prompt,
                    answer_role=made.role,
                    answer=made.value,
                    aim=aim,
                )
                pieces[id(parent)][place[id(made)], number] = answer(engine, prompt)
    return {id(variable): of(variable) for variable in order if variable.learnable}


def _parents_first(last: TextVariable) -> list[TextVariable]:
    """All texts behind one, each after its parents; without recursion, for chains may be long."""
    order: list[TextVariable] = []
    opened, done = set(), set()
    stack = [last]
    while stack:
        variable = stack[-1]
        if id(variable) not in opened:
            opened.add(id(variable))
            stack.extend(parent for parent in reversed(variable.parents) if id(parent) not in opened)
        else:
            stack.pop()
            if id(variable) not in done:
                done.add(id(variable))
                order.append(variable)
    return order


def _summary(engine: Engine, variable: TextVariable, pieces: Feedback) -> Feedback:
    if len(pieces) < 2:
        return pieces
    listed = "\n\n".join(f"<feedback>\n{piece}\n</feedback>" for piece in pieces)
    return (answer(engine, _SUMMARY.format(role=variable.role, value=variable.value, feedback=listed)),)


__all__ = ["Feedback", "textual_gradient"]
