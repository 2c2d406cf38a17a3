"""The shared end of both pipelines: gate, then export and publish what it allows."""

from typing import NamedTuple

from kfp import dsl

from components.export.component import export
from components.gate.component import gate
from components.publish.component import keep_served, publish
from pipelines.resources import on_cluster


class Release(NamedTuple):
    """What a release returns."""

    blessed: bool
    published: str
    promoted: bool
    reasons: list


@dsl.pipeline(name="release", description="Judge the candidate; export and publish what the verdict allows.")
def release(store_uri: str, pipeline: str, event_date: str, gate_config: dict, export_config: dict) -> Release:
    """Judge, export, publish."""
    verdict = on_cluster(gate(store_uri=store_uri, gate=gate_config, pipeline=pipeline, event_date=event_date))
    with dsl.If(verdict.outputs["publish"] == True, name="publish"):  # noqa: E712
        exported = on_cluster(
            export(
                store_uri=store_uri,
                export=export_config,
                pipeline=pipeline,
                event_date=event_date,
                blessing=verdict.outputs["blessing"],
            )
        )
        done = on_cluster(
            publish(store_uri=store_uri, pipeline=pipeline, event_date=event_date, versions=exported.output)
        )
    with dsl.Else(name="keep"):
        kept = on_cluster(keep_served())
    return Release(
        verdict.outputs["blessed"],
        dsl.OneOf(done.outputs["published"], kept.outputs["published"]),
        dsl.OneOf(done.outputs["promoted"], kept.outputs["promoted"]),
        verdict.outputs["reasons"],
    )
