"""The script that draws a page's figures: 4.8 MB inside a page that stands alone, or one file beside all others."""

from __future__ import annotations

import posixpath
from importlib.metadata import version

from plotly.offline import get_plotlyjs

from components.common import storage
from components.common.layout import Store


def script_beside(store: Store) -> str:
    """The element that asks for the script in the folder of the store's pages, where it is put if it is not there."""
    uri = store.page_script(version("plotly"))
    if not storage.is_file(uri):
        storage.write_bytes(uri, get_plotlyjs().encode())
    return f'<script src="{posixpath.basename(uri)}"></script>'


def script_inside() -> str:
    """The element that holds the script."""
    return f"<script>{get_plotlyjs()}</script>"
