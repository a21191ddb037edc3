"""The page: search an index in the browser, see why an image was found, and compare two models.

`open_system` opens a model with an index, `create_page` lays out the page over one or two of them, and `launch` serves
it. Nothing is loaded from the network, and nothing is reported to anyone.
"""

from __future__ import annotations

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, which would look up two hosts
