"""The pages that are written from the code, one file per page."""

NOTE = "<!-- Written by docs/generate.py; edit the code instead. -->"


def cell(text: str) -> str:
    """Return a text as it may stand in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
