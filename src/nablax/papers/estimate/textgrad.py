"""TextGrad: feedback handed down a chain of texts reaches what feedback on the end alone does not.

No language model is at hand: the engines are functions. A writer is told words and, by its prompt, to write each
backwards; a checker names one word of a wanted list that the writing lacks. The critic takes back what a prompt says
was done to the text, and the editor adds the words that the feedback names and does nothing else. The paper's own
figures, 51 to 55 % on GPQA for one, are of GPT-4o, and out of reach.
"""

import re
from collections.abc import Callable

import jax
import numpy as np

from ..._core import Key
from ...estimate import TextVariable, textual_descent, textual_gradient
from .._contrast import Contrast
from .._records import Check, Paper

PAPER = Paper(
    slug="textgrad",
    title='TextGrad: Automatic "Differentiation" via Text',
    year=2024,
    link="https://arxiv.org/abs/2406.07496",
    rooms=("estimate",),
    row=36,
    read="code",
)

_VOCABULARY = (
    "amber basil cedar delta ember fjord grove haven inlet jetty knoll lemon maple night ocean pearl quilt river stone "
    "tulip umber vapor wheat xenon yield zebra"
)
_WORDS = _VOCABULARY.split()
_WANTED = 6


def checks(key: Key, *, full: bool = False) -> list[Check]:
    """Improve an instruction by feedback down the chain, by feedback on the end, and by words drawn at random.

    Args:
        key: of the wanted words.
        full: a hundred lists of words, in place of 20.

    Returns:
        One check.
    """
    draws = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    lists = [list(draws.permutation(_WORDS)) for _ in range(100 if full else 20)]
    found = {
        "feedback down the chain": [_down_the_chain(words[:_WANTED], words[-1]) for words in lists],
        "feedback on the end": [_on_the_end(words[:_WANTED], words[-1]) for words in lists],
        "words at random, as many calls": [_at_random(words[:_WANTED], words[-1], draws) for words in lists],
    }
    return [
        Check(
            "An instruction reaches a checkable optimum by feedback that is handed down the chain of texts, and not by "
            "feedback on the last of them, at equal calls.",
            "stated in words: feedback is backpropagated to individual components",
            contrasts=Contrast("share of wanted words in the writing", found, "higher", threshold=1.0),
        ),
    ]


def _writer(prompt: str) -> str:
    return " ".join(word[::-1] for word in prompt.partition(": ")[2].split())


def _chain(wanted: list[str], instruction: TextVariable) -> tuple[TextVariable, TextVariable]:
    draft = TextVariable.asked(
        _writer, "Write each word backwards: {instruction}", role="the writing", instruction=instruction
    )

    def checker(prompt: str) -> str:
        missing = [word for word in wanted if word not in prompt.split()]
        return f"It lacks '{missing[0]}'." if missing else "It has all words."

    return draft, TextVariable.asked(checker, "Check: {draft}", role="the verdict", draft=draft)


def _critic(prompt: str) -> str:
    """Hands a word down as what the prompt says was made of it."""
    seen = prompt.partition("<feedback>")[2] or prompt.partition("<answer")[2]
    named = re.search(r"'(\w+)'", seen)
    if named is None:
        return "Leave it."
    backwards = "Write each word backwards" in prompt.partition("<prompt>")[2].partition("</prompt>")[0]
    return f"It should have '{named[1][::-1] if backwards else named[1]}'."


def _editor(prompt: str) -> str:
    value = re.search(r"<text role=.*?>\n(.*?)\n</text>", prompt, re.DOTALL)
    named = re.findall(r"'(\w+)'", prompt.partition("<feedback>")[2])
    assert value is not None
    return f"<improved>{' '.join([*value[1].split(), *named])}</improved>"


def _share(wanted: list[str], instruction: TextVariable) -> float:
    written = _chain(wanted, instruction)[0].value.split()
    return sum(word in written for word in wanted) / len(wanted)


def _start(first: str) -> dict[str, TextVariable]:
    return {"instruction": TextVariable(first, role="the instruction", learnable=True)}


def _down_the_chain(wanted: list[str], first: str) -> float:
    rule, params = textual_descent(_editor), _start(first)
    state = rule.init(params)
    gradient: Callable = textual_gradient(lambda params: _chain(wanted, params["instruction"])[1], engine=_critic)
    for _ in range(_WANTED):
        _, grads = gradient(params)
        params, state = rule.update(grads, state, params)
    return _share(wanted, params["instruction"])


def _on_the_end(wanted: list[str], first: str) -> float:
    """The verdict goes to the editor as it is; the calls saved on the critic are spent on more rounds."""
    rule, params = textual_descent(_editor), _start(first)
    state = rule.init(params)
    for _ in range(3 * _WANTED):
        verdict = _chain(wanted, params["instruction"])[1].value
        params, state = rule.update({"instruction": (verdict,)}, state, params)
    return _share(wanted, params["instruction"])


def _at_random(wanted: list[str], first: str, draws: np.random.Generator) -> float:
    """A word of the vocabulary, either way round, each round."""
    params = _start(first)["instruction"].value.split()
    for word in draws.choice(_WORDS, 3 * _WANTED, replace=False):
        params.append(str(word) if draws.random() < 0.5 else str(word)[::-1])
    return _share(wanted, TextVariable(" ".join(params), role="the instruction"))


__all__ = ["PAPER", "checks"]
