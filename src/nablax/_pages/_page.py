"""Pages from templates: the one place that makes a Jinja environment."""

from pathlib import Path
from typing import Any

from .._core import require

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Fill a template in.

    Text is escaped wherever it is put, so that a column or a loss named ``<b>`` shows as it is written; only what
    `markup` made goes in as it stands. A name that the template uses and nobody gave is an error, not a gap.

    Args:
        template: file name among this room's templates; one can extend and import others.
        **values: what the template may name.

    Returns:
        The page.

    Raises:
        ImportError: Jinja2 is not installed; the message names the extra.
    """
    jinja2 = require("jinja2", extra="app")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template(template).render(values)
    return text


def markup(text: str) -> Any:
    """Say of a text that it is HTML already, such as a drawn figure, so that a template does not escape it.

    Args:
        text: made by this package; nothing of a user's may be in it unescaped.

    Returns:
        The text as a ``markupsafe.Markup``.

    Raises:
        ImportError: Jinja2, which brings MarkupSafe, is not installed; the message names the extra.
    """
    require("jinja2", extra="app")
    from markupsafe import Markup

    return Markup(text)
