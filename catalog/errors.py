"""What SpecBeam raises when the input, and not the program, is at fault."""

SAID = 300  # characters that are passed on of a library's message


class SpecBeamError(Exception):
    """Base of every error a user can cause and mend.

    The message says what was got, what was expected and what to do next; command-line verbs print
    it without a traceback.
    """


class CatalogError(SpecBeamError):
    """The catalog's files cannot be used as they are."""


class HistoryError(SpecBeamError):
    """A history file as a whole cannot be read (a single bad line is a `Reject`, not an error)."""


class PromptError(SpecBeamError):
    """The prompt template and the tokenizer do not fit together."""


class BundleError(SpecBeamError):
    """A bundle is damaged, incomplete, or not made for what is asked of it."""


class EngineError(SpecBeamError):
    """An engine cannot be built, loaded or run on this machine."""


class RefusedError(EngineError):
    """What an engine computes is not what the exported graph computes."""


class PoolError(SpecBeamError):
    """A retrieval pool is damaged, or was not built for what it is asked."""


class ExportError(SpecBeamError):
    """A checkpoint cannot be exported faithfully."""


class OptionError(SpecBeamError, ValueError):
    """Settings that are out of range, or that cannot be combined."""


class OutputTakenError(SpecBeamError):
    """Something appeared in an output's place while it was made; the finished work is kept under another name."""


class DiskFullError(SpecBeamError):
    """There is no space left where an output is written."""


def is_fault(error: BaseException) -> bool:
    """Whether a library has failed, and nobody ends the program: those of Rust raise panics past `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def said(error: BaseException) -> str:
    """What a library's exception says, in a line; its class, too, where that alone says what is wrong."""
    text = " ".join(str(error).split())
    shown = text if len(text) <= SAID else f"{text[:SAID]}..."
    clear = shown and isinstance(error, OSError | ValueError)
    return shown if clear else f"{type(error).__name__}: {shown}".removesuffix(": ")
