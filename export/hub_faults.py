"""What goes wrong when a hub is asked for a checkpoint, and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..catalog.disk import told_if_full
from ..catalog.errors import DiskFullError, ExportError, SpecBeamError, is_fault, said
from .hub_names import HubName

LOGIN = "hf auth login"


@contextmanager
def told_faults(name: HubName) -> Iterator[None]:
    """Raise `ExportError`, or `DiskFullError`, for whatever keeps `name` from being fetched."""
    cache = Path(constants.HF_HUB_CACHE)
    try:
        with told_if_full(cache):
            yield
    except DiskFullError as error:
        raise DiskFullError(
            f"No space left in the cache {cache} while fetching {name}. Free some space there (`hf cache ls` tells "
            "what it holds), or set HF_HOME to a folder elsewhere, and run it again: what has arrived is kept."
        ) from error
    except SpecBeamError:
        raise
    except Exception as error:
        if not is_fault(error):
            raise
        raise ExportError(fault(name, error)) from error


def fault(name: HubName, error: Exception) -> str:
    """What an error of huggingface_hub says of a model that was asked for."""
    hub, repository = constants.ENDPOINT, name.repository
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is gated at {hub}: its owner lets in who asks. Ask for access at {hub}/{repository}, log in "
            f"with `{LOGIN}`, and run it again."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name} is no folder here, and {hub} has no model {repository}, or it is private. Check the name; for a "
            f"private one log in with `{LOGIN}` as somebody who may read it."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repository} has no revision {name.revision or constants.DEFAULT_REVISION!r} at {hub}; expected a "
            f"branch, a tag or a commit of it. Check what stands behind @ (without it: the branch "
            f"{constants.DEFAULT_REVISION})."
        )
    if isinstance(error, LocalEntryNotFoundError):
        return _absent(name, error)
    if isinstance(error, HfHubHTTPError):
        return _answered(name, error)
    if isinstance(error, LookupError | ValueError):
        return (
            f"{hub} does not answer for {name} as a hub does ({type(error).__name__}: {error}). Check HF_ENDPOINT, and "
            "what stands between this machine and the hub."
        )
    return (
        f"{name} could not be fetched from {hub}: {_said(error)}. Check the network (and HF_ENDPOINT, if it is set), "
        "and run it again: what has arrived is kept."
    )


def _absent(name: HubName, error: LocalEntryNotFoundError) -> str:
    """Neither in the cache nor to be fetched."""
    cause = error.__cause__
    lacking = f"{name} is no folder here, and is not (or not whole) in the cache {constants.HF_HUB_CACHE}"
    elsewhere = f"run `{name.download}` where there is one, and copy that cache here"
    if isinstance(cause, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return (
            f"{lacking}; HF_HUB_OFFLINE forbids asking {constants.ENDPOINT} for it. Unset that if there is a network, "
            f"or {elsewhere}."
        )
    if isinstance(cause, HfHubHTTPError):
        return f"{lacking}. {_answered(name, cause)}"
    why = _said(cause if isinstance(cause, Exception) else error)
    return (
        f"{lacking}; {constants.ENDPOINT} cannot be reached: {why}. Check the network (and HF_ENDPOINT, if it is set), "
        f"or {elsewhere}."
    )


def _answered(name: HubName, error: HfHubHTTPError) -> str:
    """A refusal that says no more than its status."""
    status = error.response.status_code
    told = f"{constants.ENDPOINT} answers {status} for {name}"
    if status == 401:
        lacking = "this machine's login is not valid (any more)" if get_token() else "there is no login on this machine"
        return f"{told}: {lacking}. It may be private: log in with `{LOGIN}` as somebody who may read it."
    if status == 403:
        return f"{told}: this machine's login may not read it. Log in with `{LOGIN}` as somebody who may."
    return f"{told}: {_said(error)}. Run it again later: what has arrived is kept."


def _said(error: Exception) -> str:
    return said(error).rstrip(".")
