"""The weekly pipeline that pretrains tables; batches that are trained later start from them."""

from kfp import dsl
from kfp.dsl.graph_component import GraphComponent

from pipelines.cluster import DEFAULT_CLUSTER, ClusterConfig
from pipelines.pods import on_cluster, run_limits
from pipelines.steps import collect_edges, pretrain_tables


def pretraining(cluster: ClusterConfig = DEFAULT_CLUSTER) -> GraphComponent:
    """Edges of the days that have none, then the tables, unless they are there."""

    @dsl.pipeline(
        name="pretraining",
        description="Pretrain the tables of ids on all engagement in the logs.",
        pipeline_config=run_limits(cluster),
    )
    def pretraining(store_uri: str, config_uri: str, as_of: str = "") -> None:
        addresses = {"store_uri": store_uri, "config_uri": config_uri, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
        edges = on_cluster(collect_edges(**addresses, as_of=as_of), cluster)
        on_cluster(pretrain_tables(**addresses, through=edges.output), cluster)

    return pretraining
