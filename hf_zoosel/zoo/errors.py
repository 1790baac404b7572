"""The one error of this room, and how the errors of others are quoted in it."""


class CandidateError(Exception):
    """A candidate that cannot be used; the text is the reason its row in the ranking shows."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an error says, without line breaks and at most ``limit`` characters of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
