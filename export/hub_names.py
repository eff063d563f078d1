"""What a checkpoint is called: a folder of this machine, or a model of a hub, org/name or org/name@revision."""

import re
from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..catalog.errors import ExportError

FORM = "org/name or org/name@revision"
# What git lets a branch or a tag be called; it also becomes the name of a file in the cache.
_REVISION = re.compile(r"(?!.*\.\.)[^\s/~^:?*\[\\\x00-\x1f\x7f]+(/[^\s/~^:?*\[\\\x00-\x1f\x7f]+)*")
_PATHS = ("/", ".", "~")  # how a path begins that can be nothing else
_FILES = (".json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx")


@dataclass(frozen=True)
class HubName:
    """A model of a hub."""

    repository: str
    revision: str | None = None  # a branch, a tag or a commit; None: the main branch

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def download(self) -> str:
        """The command that puts it into the cache."""
        revision = "" if self.revision is None else f" --revision {self.revision}"
        return f"hf download {self.repository}{revision}"


def is_path(text: str) -> bool:
    """Whether that can only be a path."""
    return text.startswith(_PATHS) or text.endswith(("/", *_FILES)) or text.partition("@")[0].count("/") > 1


def hub_name(text: str) -> HubName:
    """What a model is called that is no folder here. Raises `ExportError` where it cannot be a hub's either."""
    repository, at, revision = text.partition("@")
    if is_path(text):
        home = " The shell alone knows what ~ is: write it without quotes, or the whole path." * text.startswith("~")
        raise ExportError(
            f"There is no folder {text}; expected a checkpoint's, as save_pretrained writes it. Check the path.{home} "
            f"(A hub's models are named {FORM}.)"
        )
    if "/" not in repository:
        raise _misnamed(text, "it names no organization")
    return checked_name(text, repository, revision if at else None)


def checked_name(text: str, repository: str, revision: str | None) -> HubName:
    """A hub's name in its two parts, of which the first may be a name alone; `text` is what was given."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise _misnamed(text, " ".join(str(error).split()).rstrip(".")) from None
    if revision is not None and not _REVISION.fullmatch(revision):
        raise _misnamed(text, f"{revision!r} is no branch, tag or commit" if revision else "nothing stands behind @")
    return HubName(repository, revision)


def _misnamed(text: str, why: str) -> ExportError:
    return ExportError(
        f"There is no folder {text!r}, and it is no hub's model: {why}. Expected a checkpoint's folder (check the "
        f"path), or {FORM}."
    )
