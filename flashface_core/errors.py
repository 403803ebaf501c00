"""The one error type for input that a user can fix."""


class FlashFaceError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do."""

    # ComfyUI shows module and name before every message, and of a pack the module is the path of
    # its folder. Of what is built in it shows the name alone.
    __module__ = "builtins"

    def __reduce__(self):
        return _again, self.args


def first_line(error: BaseException) -> str:
    """What a library said, for a sentence of ours; its name where it said nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _again(*args) -> FlashFaceError:
    """For pickle, which looks for a class where __module__ says."""
    return FlashFaceError(*args)
