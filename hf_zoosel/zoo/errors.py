"""The one error of this room."""


class CandidateError(Exception):
    """A candidate that cannot be used; the text is the reason its row in the ranking shows."""
