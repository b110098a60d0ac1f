"""Words of messages."""


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: "1 picture", "2,000 pictures", "3 indices" with plural="indices"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
