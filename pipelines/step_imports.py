"""What the steps import, for the process that local runs fork them from."""

import logging
from importlib import import_module

import plotly.graph_objects

from components.common.long_lived import long_lived

# Beam warns of every cloud's client that is not installed.
logging.getLogger().setLevel(logging.ERROR)

with long_lived():
    for name in (
        "components.collect_edges.run",
        "components.evaluate.run",
        "components.export.run",
        "components.gate.run",
        "components.join.run",
        "components.make_logs.run",
        "components.online.run",
        "components.pretrain.run",
        "components.publish.run",
        "components.report.run",
        "components.schedule.run",
        "components.train.run",
        "data_validation.examples.statistics_page",
        "data_validation.logs.data_docs",
        "data_validation.logs.expectations",
        "data_validation.run",
        "kfp.dsl.executor_main",
        "pipelines.work",
    ):
        import_module(name)
    # It imports what a figure has when the first one is made.
    plotly.graph_objects.Figure(plotly.graph_objects.Scatter(), {"template": "plotly_white"})
