"""The decorator of kfp components."""

from functools import partial

from kfp import dsl

# On a cluster the image comes from pipelines/resources.py; the local runner ignores it.
step = partial(dsl.component, base_image="python:3.11", install_kfp_package=False)
