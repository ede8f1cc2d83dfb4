"""Read the rows of a parquet file with pyarrow, an extra: `pip install hrnn-stream[parquet]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from stream.commands.failures import Failure
from stream.files.bad_file import BAD_FILE, DAMAGED_FILE
from stream.files.layout import REQUIRED, Layout, table_of

ROWS_AT_ONCE = 8192


def parquet_rows(
    source: BinaryIO, layout: Layout, required: tuple[str, ...] = REQUIRED
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return each row's number, from 1, and its cells by column name; raises Failure for a file that can't be read."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise Failure(
            "parquet needs pyarrow, which is not installed",
            "pip install 'hrnn-stream[parquet]', or write the file as CSV",
            exit_code=BAD_FILE,
        ) from None
    try:
        # parquet's index is at its end, so a pipe must be read as a whole
        file = parquet.ParquetFile(arrow.BufferReader(source.read()))
        names = [name for name in file.schema_arrow.names if "," not in name]
        table = table_of(Layout(columns=layout.columns), ",".join(names).encode(), required)
        named = dict(zip(names, table.columns, strict=True))
        number = 0
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, {named[name]: cell for name, cell in row.items()}
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, OSError) as error:
        raise Failure(
            f"the parquet file can't be read: {str(error).splitlines()[0]}",
            "it may be damaged or cut off; write it again, or as CSV",
            exit_code=DAMAGED_FILE,
        ) from None
