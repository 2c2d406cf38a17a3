"""The kfp component of the gate."""

from typing import NamedTuple

from kfp.dsl import Artifact, Output

from components.common.step import step


@step
def gate(store_uri: str, gate: dict, pipeline: str, event_date: str, blessing: Output[Artifact]) -> NamedTuple(
    "Verdict", [("blessed", bool), ("publish", bool), ("reasons", list)]
):
    """Judge the candidate and choose what to publish; fails closed."""
    from components.gate import run

    verdict = run.main(store_uri, gate, pipeline, event_date)
    with open(blessing.path, "w") as stream:
        stream.write(verdict.model_dump_json(indent=2))
    return (verdict.blessed, bool(verdict.releases), [*verdict.reasons, *verdict.withheld])
