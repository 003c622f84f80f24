"""Tables in documents: what stands between two markers is written by a program, never by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def between_markers(document: Path, name: str) -> str:
    """What a document holds between `<!-- name -->` and `<!-- /name -->`.

    Raises:
      ValueError: the document has no such markers.
    """
    _, text, _ = _split(document, name)
    return text


def write_between_markers(document: Path, name: str, text: str) -> None:
    """Replace what stands between the markers; the rest of the document stays as it is."""
    before, _, after = _split(document, name)
    document.write_text(f"{before}\n{text.strip()}\n{after}")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def _split(document: Path, name: str) -> tuple[str, str, str]:
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = document.read_text().partition(opening)
    text, ended, after = rest.partition(closing)
    if not (found and ended):
        raise ValueError(f"{document} has no markers {opening} and {closing}")
    return before + opening, text.strip(), closing + after
