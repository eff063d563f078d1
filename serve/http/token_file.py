"""The token that clients must send, from its file."""

from pathlib import Path

from ...catalog.errors import OptionError

LONGEST = 4096  # bytes


def read_token(path: Path) -> str:
    """The file's one line. Raises `OptionError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
        token = raw.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the token of {path} cannot be read: {error}. Check the file.") from None
    if len(raw) > LONGEST or not token:
        raise OptionError(f"{path} is {'empty' if not token else 'too long'}; expected one line, the token.")
    return token
