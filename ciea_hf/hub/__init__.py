"""Publishing a model on the Hugging Face Hub, and fetching one: whole, in one commit, and without pickles."""

from __future__ import annotations

from ciea_hf.hub.checks import check_folder
from ciea_hf.hub.download import pull
from ciea_hf.hub.errors import HubError
from ciea_hf.hub.upload import PushResult, push

__all__ = ["HubError", "PushResult", "check_folder", "pull", "push"]
