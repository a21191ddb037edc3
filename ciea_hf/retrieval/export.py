"""Export of an index to plain parquet, for engines that this package does not know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ciea_hf.files import atomic_write
from ciea_hf.retrieval.segment import HASH, METADATA
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    import os

    from ciea_hf.retrieval.corpus import EncodedCorpus


def export_parquet(corpus: EncodedCorpus, path: str | os.PathLike[str]) -> int:
    """Write the documents of a corpus to one parquet file.

    The columns are `id`, `vector` (a list of float32), `kind`, `text`, and `metadata.NAME` for each field of the
    metadata. Documents without an embedding are left out. Memory is bounded by the largest shard.

    Args:
        corpus: Corpus.
        path: The file.

    Returns:
        Number of documents.

    Raises:
        ValueError: If a field of the metadata has several types.
    """
    arrow, parquet = (import_optional(name, extra="search") for name in ("pyarrow", "pyarrow.parquet"))
    vector = arrow.field("vector", arrow.list_(arrow.float32()))
    try:
        schema = arrow.unify_schemas(
            [segment.table.drop_columns([HASH]).schema for segment in corpus.segments], promote_options="permissive"
        )
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        fields = ", ".join(sorted(corpus.fields))
        raise ValueError(f"the metadata ({fields}) have other types in other shards: {error}") from error
    names = ["id", "vector", "kind", "text", *sorted(name for name in schema.names if name.startswith(METADATA))]
    ordered = arrow.schema([vector if name == "vector" else schema.field(name) for name in names])
    count = 0
    with atomic_write(Path(path)) as temporary, parquet.ParquetWriter(temporary, ordered) as writer:
        for start, segment in zip(corpus.starts, corpus.segments, strict=False):
            rows = np.flatnonzero(corpus.live[start : start + len(segment)])
            table = segment.table.take(rows)
            embeddings = segment.embeddings(rows)
            offsets = np.arange(len(rows) + 1, dtype=np.int32) * segment.dimension
            columns = {"vector": arrow.ListArray.from_arrays(offsets, embeddings.reshape(-1))}
            for name in names:
                if name != "vector":
                    kind = ordered.field(name).type
                    there = name in table.column_names
                    columns[name] = table[name].cast(kind) if there else arrow.nulls(len(rows), kind)
            writer.write_table(arrow.table([columns[name] for name in names], schema=ordered))
            count += len(rows)
    return count
