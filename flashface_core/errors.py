"""The one error type for input that a user can mend."""


class FlashFaceError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do."""
