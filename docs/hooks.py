"""Fill the generated tables: papers from their records, and the repository's own pages."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each marker by what it stands for."""
    if "<!-- papers -->" in markdown:
        markdown = markdown.replace("<!-- papers -->", _papers())
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        marker = f"<!-- {name} -->"
        if marker in markdown:
            text = (ROOT / name).read_text(encoding="utf-8").replace("docs/assets/", "assets/")
            markdown = markdown.replace(marker, text.replace("](docs/", "]("))
    return markdown


def _papers() -> str:
    from nablax import papers

    recorded = papers.recorded()
    head = ["paper", "rooms", "claim", "stated", "measured", "baseline", " "]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for paper in papers.available():
        checks = recorded[paper.slug].checks if paper.slug in recorded else ()
        title = f"[{paper.title}]({paper.link}) ({paper.year})<br>`{paper.slug}`"
        for number, check in enumerate(checks):
            head = f"{title} | {', '.join(paper.rooms)}" if number == 0 else " | "
            cells = (check.statement, check.stated, check.measured, check.baseline, check.verdict)
            lines.append(f"| {head} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if not checks:
            lines.append(f"| {title} | {', '.join(paper.rooms)} | not recorded | | | | |")
    return "\n".join(lines)
