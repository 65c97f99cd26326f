"""Texts, and texts that an engine made from them."""

import dataclasses
import string
from collections.abc import Callable
from typing import Any

from ..._core import check_callable, described, fault

Engine = Callable[[str], str]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TextVariable:
    """A text with a part to play, and what it was made from.

    Args:
        value: the text.
        role: what it is, in words, for the engine that judges it: "the instruction to the writer".
        learnable: whether it is to be improved.
        parents: the texts that it was made from, in order of use; a text that is used twice stands there twice.
        prompt: what the engine was asked.

    Raises:
        ValueError: a value or a role that is no text.

    Example:
        >>> from nablax import estimate
        >>> word = estimate.TextVariable("cat", role="a word")
        >>> asked = estimate.TextVariable.asked(str.upper, "louder: {word}", role="a shout", word=word)
        >>> asked.value
        'LOUDER: CAT'

    References:
        - Yuksekgonul et al., "TextGrad: Automatic "Differentiation" via Text", 2024, https://arxiv.org/abs/2406.07496
    """

    value: str
    role: str
    learnable: bool = False
    parents: tuple["TextVariable", ...] = ()
    prompt: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "role"):
            if not isinstance(getattr(self, name), str):
                raise fault(
                    expected=f"{name}, a text", got=described(getattr(self, name)), fix=f"Pass a str as {name}."
                )

    def __repr__(self) -> str:
        return f"TextVariable({self.value!r}, role={self.role!r})"

    @classmethod
    def asked(cls, engine: Engine, template: str, *, role: str, **parents: "TextVariable") -> "TextVariable":
        """Make a text by asking an engine.

        Args:
            engine: ``prompt -> answer``; any function of a text, such as `chat_engine` makes, or a checker of yours.
            template: of the prompt, with ``{name}`` where a parent's value stands.
            role: of the answer.
            parents: by name. The order of use is that of the template.

        Returns:
            The answer.

        Raises:
            ValueError: names that do not match, or an engine that does not answer with a text.
        """
        check_callable(engine, what="engine", fix="Pass a function of a prompt that returns the answer, a str.")
        used = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        if set(used) != set(parents):
            raise fault(
                expected=f"a template with the names {sorted(parents)} in braces",
                got=f"{sorted(set(used))}",
                fix="Give a text for each name; double the braces that are to stay.",
            )
        for name, parent in parents.items():
            if not isinstance(parent, TextVariable):
                raise fault(
                    expected=f"{name}, a TextVariable",
                    got=described(parent),
                    fix=f"Pass {name}=estimate.TextVariable(text, role=...).",
                )
        prompt = template.format(**{name: parent.value for name, parent in parents.items()})
        return cls(answer(engine, prompt), role, parents=tuple(parents[name] for name in used), prompt=prompt)


def answer(engine: Engine, prompt: str) -> str:
    """What an engine answers.

    Raises:
        ValueError: no text.
    """
    found: Any = engine(prompt)
    if not isinstance(found, str):
        raise fault(expected="an engine that answers with a text", got=described(found), fix="Return a str.")
    return found


def check_texts(params: Any, leaves: list) -> None:
    """Refuse parameters that are no texts to be improved.

    Raises:
        ValueError: they are not.
    """
    if not leaves or not all(isinstance(leaf, TextVariable) and leaf.learnable for leaf in leaves):
        raise fault(
            expected="parameters that are TextVariables with learnable=True, in a tree of any kind",
            got=repr(params),
            fix='Pass {"instruction": estimate.TextVariable(text, role=..., learnable=True)}, for one.',
        )


__all__ = ["Engine", "TextVariable", "answer", "check_texts"]
