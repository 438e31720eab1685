"""Lines of text from a pipe."""

from collections.abc import Iterator
from typing import BinaryIO


def lines_of(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of stdin without their ends; raises `ValueError` on one not in UTF-8."""
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"stdin:{number}: not UTF-8 (byte 0x{line[error.start]:02x}: {error.reason}); "
                "convert the text, e.g. with `iconv -t UTF-8`"
            ) from None
