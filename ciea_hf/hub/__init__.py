"""Uploads models to the Hugging Face Hub in one commit, and downloads them with safety checks."""

from __future__ import annotations

from ciea_hf.hub.checks import check_folder
from ciea_hf.hub.download import pull
from ciea_hf.hub.errors import HubError
from ciea_hf.hub.upload import PushResult, push

__all__ = ["HubError", "PushResult", "check_folder", "pull", "push"]
