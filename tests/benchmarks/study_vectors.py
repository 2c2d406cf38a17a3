"""Vectors of the demo's product descriptions as features: AUC of unseen next days, and what they cost.

A product's department, category, type, brand and package become TF-IDF weights of words and of their parts, then 32
numbers by a truncated SVD (scikit-learn); all products are delivered once, before the first day. The recipe and the
scoring are those of `study_exact_ids`. The last lines compare examples that hold the vectors with look-ups as examples
are read. Prints one figure a line.

`python -m tests.benchmarks.study_vectors [seeds]`
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from components.common.parquet_files import read_parquet, write_parquet
from components.features.encoding import encode
from components.features.examples import TRAINING, read_examples
from components.features.feature_list import FeatureConfig
from components.features.objectives import DEFAULT_SERVED
from components.features.vectors import KnownVectors
from components.make_logs.complete_journey import package_folder
from components.ranker.dataset import tensors_of
from components.sources.config import VectorSource
from components.sources.vector_days import deliver_vectors
from tests.benchmarks.study_exact_ids import aucs_of, recipe_of
from tests.benchmarks.study_gate_predictions import Source, journey

DIM, NAME, ROUNDS = 32, "item_text", 5
_TEXTS = ("department", "product_category", "product_type", "brand", "package_size")


def described() -> pa.Table:
    """Each product's id and vector, of length one."""
    products = read_parquet(str(package_folder() / "products.parquet")).to_pandas()
    texts = products[list(_TEXTS)].fillna("").astype(str).agg(" ".join, axis=1)
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=5).fit_transform(texts)
    vectors = TruncatedSVD(DIM, random_state=0).fit_transform(weights).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return pa.table({"item_id": products["product_id"].astype("int64").to_numpy(), "vector": list(vectors)})


def with_vectors(source: Source) -> FeatureConfig:
    """The demo's features and the vectors, which are delivered into its store."""
    values = source.config.features.model_dump(mode="json")
    values["vectors"] = [{"name": NAME, "entity": "item_id", "dim": DIM}]
    features, first = FeatureConfig.parse(values, "features"), source.config.schedule.first_day
    folder = source.folder / NAME / f"event_date={first - timedelta(days=1)}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "part.parquet").exists():
        write_parquet(str(folder / "part.parquet"), described())
    where = VectorSource(uri=str(folder.parent))
    deliver_vectors(source.store, features.vectors[0], where, first, source.days[-1])
    return features


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU."""
    started = time.process_time()
    work()
    return time.process_time() - started


def costs(source: Source, features: FeatureConfig) -> Iterator[str]:
    """Bytes and CPU of a day's training examples, of vectors in them over vectors that are looked up."""
    day, plain = source.days[0], source.config.features
    table = read_examples(source.store, TRAINING, day)[0]
    known = KnownVectors.before(source.store, features, day, day)
    ordinals = np.full(table.num_rows, 10**6)
    vectors = known.look_up(encode(table, features).owners, ordinals)
    copied = table.append_column(NAME, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM))
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("plain.parquet", "copied.parquet")]
        for file, content in zip(files, (table, copied), strict=True):
            write_parquet(str(file), content)
        sizes = [file.stat().st_size for file in files]
        turns: dict[str, list[float]] = {"plain": [], "looked_up": [], "copied": []}
        for _ in range(ROUNDS):
            turns["plain"].append(timed(lambda: tensors_of(read_parquet(str(files[0])), plain, False)))
            turns["looked_up"].append(
                timed(lambda: tensors_of(read_parquet(str(files[0])), features, False, vectors=known))
            )
            turns["copied"].append(timed(lambda: tensors_of(read_parquet(str(files[1])), plain, False)))
    medians = {name: float(np.median(seconds)) for name, seconds in turns.items()}
    yield f"study.vectors.example_bytes_ratio: {sizes[1] / sizes[0]:.2f}"
    yield f"study.vectors.read_cpu_ratio_looked_up: {medians['looked_up'] / medians['plain']:.2f}"
    yield f"study.vectors.read_cpu_ratio_copied: {medians['copied'] / medians['plain']:.2f}"


def main(num_seeds: int = 3) -> None:
    """Print the figures."""
    source = journey()
    features = with_vectors(source)
    for line in costs(source, features):
        print(line, flush=True)
    for way, own in (("without", source.config.features), ("with", features)):
        runs = [aucs_of(source, own, recipe_of(source, seed), f"vectors-{way}-{seed}") for seed in range(num_seeds)]
        for name in DEFAULT_SERVED:
            aucs = [run[name] for run in runs]
            print(
                f"study.vectors.{way}.{name}: {np.mean(aucs):.4f}, seeds {min(aucs):.4f} to {max(aucs):.4f}", flush=True
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
