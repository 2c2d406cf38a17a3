"""The kfp component of the gate."""

from typing import NamedTuple

from kfp.dsl import Artifact, Output

from components.common.step import step


@step
def gate(store_uri: str, config_uri: str, pipeline: str, event_date: str, blessing: Output[Artifact]) -> NamedTuple(
    "Verdict", [("publish", bool)]
):
    """Judge the candidate and choose what to publish; fails closed."""
    from components.common.progress import reported

    with reported("gate"):
        from components.gate import run

        verdict = run.main(store_uri, config_uri, pipeline, event_date)
        with open(blessing.path, "w") as stream:
            stream.write(verdict.model_dump_json(indent=2))
        return (bool(verdict.releases),)
