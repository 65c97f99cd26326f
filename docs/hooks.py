"""What is done while the site is built: generated pages, formulas, the repository's own pages."""

from pathlib import Path
from typing import Any

from _hooks import formulas, papers, reference, tables
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
_GENERATED = (papers, reference)


def on_config(config: Any, **_: object) -> None:
    """Put the generated pages into the navigation, in the places that bear their titles."""
    made = {"Papers": papers.navigation, "Reference": reference.navigation}
    for item in config.nav:
        item |= {title: pages() for title, pages in made.items() if title in item}


def on_files(files: Any, config: Any, **_: object) -> None:
    """Add the generated pages."""
    for module in _GENERATED:
        for path, text in module.pages().items():
            files.append(File.generated(config, path, content=text))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the repository's own pages where their markers stand, their links turned round."""
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        whole, rest = f"<!-- {name} -->", f"<!-- {name} from its first section on -->"
        if whole in markdown or rest in markdown:
            text = (ROOT / name).read_text(encoding="utf-8")
            text = text.replace("](docs/", "](").replace('"docs/assets/', '"assets/')
            _, title, sections = text.partition("\n## ")
            markdown = markdown.replace(whole, text).replace(rest, title + sections)
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """Draw the formulas, and make wide tables readable on a phone."""
    return tables.label_cells(formulas.draw_formulas(html))
