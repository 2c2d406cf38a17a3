"""The single file predicts what tables and ranker do, is about as small, and answers NaN for ids without a row."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from components.common.errors import InputError
from components.export import single_file
from components.export.config import ExportConfig
from components.export.single_file import check_size, compare_single_file, export_single_file
from components.features.encoding import encode
from components.features.examples import EVALUATION, read_examples
from components.features.feature_list import FeatureConfig
from components.publish.registry import publish_releases
from components.ranker.config import ModelConfig
from components.ranker.ranker import Ranker
from components.version.manifest import PREDICTOR_INPUTS
from components.version.packed_tables import PackedTable
from components.version.predictor import Predictor
from components.version.version import Version
from tests.unit.export.served import export_of, make_files

SUMS = {"combine": "sum", "split": "skip"}
FILES = ["ids.bin", "predictor.onnx", "ranker.onnx", "tables.int4"]


def open_session(content):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def inputs_of(table, features):
    encoded = encode(table, features)
    values = (encoded.categorical, encoded.dense, encoded.sequence, encoded.lengths)
    return dict(zip(PREDICTOR_INPUTS, values, strict=True))


def with_codes(features, **code):
    """User ids in codes of 31 bits, beyond what float32 holds, item ids in codes of 10."""
    sizes = {"user_id": {"code_bits": 31, "block_bits": 8}, "item_id": {"code_bits": 10, "block_bits": 4}}
    codes = {name: size | code for name, size in sizes.items()}
    values = features.model_dump(mode="json")
    values["categorical"] = [
        {"name": feature["name"], "binary_code": codes[feature["name"]]} if feature["name"] in codes else feature
        for feature in values["categorical"]
    ]
    return FeatureConfig.parse(values, "features")


def random_ranker(features, dim):
    """Vectors far enough apart that another row is another prediction."""
    torch.manual_seed(0)
    return Ranker(features, ModelConfig(embedding_dim=dim, embedding_init=1.0)).eval()


def export_both(joined, code=None, dim=32, max_error=5.8e-3, hot_share=0.5):
    """The feature list with these codes, and its ranker's tables, graph and single file."""
    features = with_codes(joined.config.features, **code) if code else joined.config.features
    return features, *_export_both(features, dim, max_error, hot_share)


# An export takes seconds, and several tests want the same one.
@lru_cache
def _export_both(features, dim, max_error, hot_share):
    generator = np.random.default_rng(1)
    hot = {name: np.flatnonzero(generator.random(rows) < hot_share) for name, rows in features.tables.items()}
    files = make_files(random_ranker(features, dim), features, max_error, hot)
    single = export_single_file(files.packed_ranker, files.tables, files.specs, features, ExportConfig())
    return files, single


@pytest.mark.parametrize(
    ("code", "dim", "max_error", "hot_share", "block_sizes"),
    [
        (SUMS, 4, 7e-3, 0.3, {4}),
        (None, 32, 5.8e-3, 0.5, {16, 32}),
        ({"combine": "concatenate", "split": "succession"}, 32, 0.0, 1, {16}),
    ],
)
def test_single_file_predicts_what_tables_and_ranker_do(joined, code, dim, max_error, hot_share, block_sizes):
    features, files, single = export_both(joined, code, dim, max_error, hot_share)
    assert {spec.block_size for spec in files.specs} == block_sizes
    assert (hot_share > 0) == any(spec.num_hot for spec in files.specs)
    table = read_examples(joined.store, EVALUATION, joined.scored_day)[0].slice(0, 400)
    served, session = files.predict(table), open_session(single)
    assert np.ptp(served, axis=0).min() > 0.01
    for rows in (1, 7, 400):
        (found,) = session.run(["probabilities"], inputs_of(table.slice(0, rows), features))
        assert found.shape == (rows, 6)
        np.testing.assert_allclose(found, served[:rows], rtol=0, atol=1e-6)
    assert compare_single_file(single, table, features, served, ExportConfig()) <= 1e-6


def test_graph_is_checked_and_has_named_inputs_of_any_batch(joined):
    _, _, single = export_both(joined, SUMS, 4, 7e-3, 0.3)
    model = onnx.load_from_string(single)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 20
    types = {value.name: value.type.tensor_type for value in model.graph.input}
    assert tuple(types) == PREDICTOR_INPUTS
    assert all(tensor.shape.dim[0].dim_param for tensor in types.values())
    integers = {name for name, tensor in types.items() if tensor.elem_type == onnx.TensorProto.INT64}
    assert integers == {"categorical_ids", "sequence_ids", "lengths"}
    assert {node.domain for node in model.graph.node} == {""}


def test_file_is_as_small_as_tables_and_ranker(joined):
    values = joined.config.features.model_dump(mode="json")
    for feature in values["categorical"]:
        if feature["name"] in ("user_id", "item_id"):
            feature["num_rows"] = 50_000
    files, single = _export_both(FeatureConfig.parse(values, "features"), 32, 7e-3, 0.2)
    assert sum(spec.num_bytes for spec in files.specs) > 2_000_000
    assert len(single) <= 1.1 * (len(files.tables) + len(files.onnx))


@pytest.mark.parametrize("exported", [(SUMS, 4, 7e-3, 0.3), (None, 32, 5.8e-3, 0.5)])
def test_row_with_an_id_out_of_range_has_no_probability(joined, exported):
    """The id is neither counted from the table's end, nor cut to a code, and other rows are what they were."""
    features, _, single = export_both(joined, *exported)
    session = open_session(single)
    table = read_examples(joined.store, EVALUATION, joined.scored_day)[0].slice(0, 5)
    columns = [("categorical_ids", place, name) for place, name in enumerate(features.categorical_tables)]
    columns += [("sequence_ids", place, name) for place, name in enumerate(features.sequence_tables)]
    (expected,) = session.run(None, inputs_of(table, features))
    for key, place, name in columns:
        limit, inputs = features.num_ids[name], inputs_of(table, features)
        for wrong in (limit, -1, -limit, 2 * limit, 2**62, -(2**63)):
            damaged = inputs | {key: inputs[key].copy()}
            damaged[key][3, ..., place] = wrong
            (probabilities,) = session.run(None, damaged)
            assert np.isnan(probabilities[3]).all()
            np.testing.assert_allclose(np.delete(probabilities, 3, 0), np.delete(expected, 3, 0), atol=1e-6)
        inputs[key] = inputs[key].copy()
        inputs[key][3, ..., place] = limit - 1
        assert np.isfinite(session.run(None, inputs)[0]).all()


def test_tables_beyond_protobuf_are_refused():
    spec = PackedTable(name="user_id", num_rows=2**31 // 20, dim=32, block_size=32, first_byte=0, relative_error=0)
    with pytest.raises(InputError, match=r"export\.single_file: tables of 2147483640 bytes .* 2 GiB"):
        check_size([spec], 1000)
    fitting = spec.model_copy(update={"num_rows": 10**8})
    check_size([fitting], 1000)
    with pytest.raises(InputError, match="ranker of 200000000 do not fit"):
        check_size([fitting], 200_000_000)


def assert_nothing_exported(unexported):
    found = Path(unexported.uri).parent.glob(f"{Path(unexported.uri).name}*/*")
    assert [*found] == []


def test_there_is_none_unless_asked_for(unexported):
    manifest = unexported.export()
    assert [file.name for file in manifest.files] == [name for name in FILES if name != "predictor.onnx"]
    assert manifest.parity.single_file_max_difference is None


def documented_snippet():
    """How docs/versions.md runs the file."""
    return re.search(r"```python\n(.*?)```", Path("docs/versions.md").read_text(), re.DOTALL)[1]


def test_version_with_a_single_file_is_published_and_runs_as_documented(unexported, monkeypatch):
    deployment, blessing = unexported.deployment, unexported.blessing
    snippet = documented_snippet()
    manifest = unexported.export(single_file=True)
    assert [file.name for file in manifest.files] == FILES
    assert manifest.parity.single_file_max_difference <= 1e-6
    digest = manifest.version_digest
    publish_releases(deployment.store, blessing, export_of(blessing, [digest]))
    uri = deployment.store.version(digest)
    predictor = Predictor.from_version(Version.open(uri))
    rows = read_examples(deployment.store, EVALUATION, deployment.scored_day)[0]
    names = {"rows": rows}
    monkeypatch.chdir(uri)
    exec(snippet, names)
    np.testing.assert_allclose(names["probabilities"], predictor.predict(rows), rtol=0, atol=1e-6)


def test_single_file_that_predicts_otherwise_stops(unexported, monkeypatch):
    def export_damaged(ranker, content, *others):
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        damaged[:4000:6] ^= 1
        return export_single_file(ranker, damaged.tobytes(), *others)

    monkeypatch.setattr("components.export.run.export_single_file", export_damaged)
    withheld = unexported.withheld(single_file=True)
    assert re.search(r"single_file: the file differs .* at most 1e-06 ", withheld)
    assert_nothing_exported(unexported)


def test_too_large_tables_stop_before_anything_is_written(unexported, monkeypatch):
    monkeypatch.setattr(single_file, "_MAX_BYTES", 100_000)
    with pytest.raises(InputError, match=r"export\.single_file: tables of \d+ bytes"):
        unexported.export(single_file=True)
    assert_nothing_exported(unexported)


def test_difference_that_is_no_number_stops(joined):
    _, files, single = export_both(joined)
    table = read_examples(joined.store, EVALUATION, joined.scored_day)[0].slice(0, 20)
    served = files.predict(table)
    served[3, 2] = np.nan
    with pytest.raises(InputError, match="differs from tables and ranker by nan"):
        compare_single_file(single, table, files.features, served, ExportConfig())
