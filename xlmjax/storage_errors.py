"""What went wrong with the files of a run: damage, storage that may come back, or what to mend."""

import contextlib
import errno
import re
from collections.abc import Iterator, Sequence

import jax
from etils import epath

# What tells of the data of a checkpoint: these errors, without another status in front than these.
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_UNDECODABLE = (ValueError, LookupError, TypeError, AttributeError, EOFError)
_STATUS = re.compile(r"([A-Z]+(?:_[A-Z]+)*): ")
_DATA_STATUS = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")


class CheckpointError(OSError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


class DamagedError(CheckpointError):
    """A checkpoint of which something is missing or is not what was saved."""


class StorageError(CheckpointError):
    """A file of the run not written or read for a reason that may pass, as storage out of reach.

    Started again, the run may succeed.
    """


@contextlib.contextmanager
def reading(place: epath.Path) -> Iterator[None]:
    """Turn whatever a failed read of a checkpoint, or of the folder of all, raises into a sentence.

    Raises `DamagedError` only on evidence of damage, which costs the steps since the checkpoint
    before; `CheckpointError` where reading is forbidden or memory ran out; `StorageError` on all
    else.
    """
    try:
        yield
    except Exception as error:
        what = f"{place} cannot be read: {_brief(error)}"
        if is_forbidden(error):
            raise CheckpointError(f"{what}. Allow it and run the same command again") from error
        if _is_out_of_memory(error):
            raise CheckpointError(
                f"{what}. Memory ran out: raise mesh.fsdp, or use more or larger machines"
            ) from error
        if _is_damage(error):
            raise DamagedError(what) from error
        raise StorageError(
            f"{what}. This may pass, and nothing is moved: run the same command again, and if it "
            "stays so, move the checkpoint away to go on from the one before"
        ) from error


@contextlib.contextmanager
def writing(place: epath.Path) -> Iterator[None]:
    """Turn what a failed write of a file beside the checkpoints raises into a sentence.

    Raises `StorageError` where trying again may help, `OSError` where there is no room or access is
    denied; `ValueError`, `TypeError` and `LookupError` are none of the storage and stay.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, StorageError):
        raise
    except Exception as error:
        what = f"{place} cannot be written: {_brief(error)}"
        if is_full(error) or is_forbidden(error):
            raise OSError(f"{what}. Mend that and run the same command again") from error
        raise StorageError(f"{what}. This may pass: run the same command again") from error


def is_full(error: BaseException) -> bool:
    """Say whether there was no room to write."""
    return _tells(error, (errno.ENOSPC, errno.EDQUOT), ("No space left", "RESOURCE_EXHAUSTED"))


def is_forbidden(error: BaseException) -> bool:
    """Say whether access was denied."""
    words = ("PERMISSION_DENIED", "UNAUTHENTICATED", "PermissionDenied", "Unauthenticated")
    return _tells(error, (errno.EACCES, errno.EPERM, errno.EROFS), words)


def _tells(error: BaseException, numbers: Sequence[int], words: Sequence[str]) -> bool:
    """Say whether an error, or one that it came from, has one of these numbers or words."""
    return any(
        (isinstance(link, OSError) and link.errno in numbers)
        or any(word in f"{type(link).__name__}: {link}" for word in words)
        for link in _chain(error)
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory of the host or of a device ran out; storage has quotas of its own."""
    return any(
        isinstance(link, MemoryError)
        or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        or (isinstance(link, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(link))
        for link in _chain(error)
    )


def _is_damage(error: BaseException) -> bool:
    """Say whether an error tells of the data, and no error that it came from of anything else.

    TensorStore raises `ValueError` for all there is, with a status code in front of most.
    """
    tells = False
    for link in _chain(error):
        status = _STATUS.match(str(link))
        if isinstance(link, _MISSING):
            tells = True
        elif isinstance(link, OSError | jax.errors.JaxRuntimeError) or (
            status and status[1] not in _DATA_STATUS
        ):
            return False
        elif isinstance(link, _UNDECODABLE):
            tells = True
    return tells


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _brief(error: BaseException) -> str:
    """Return the first line of what an error was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
