"""Routes of the Hub that huggingface_hub requests, with the method of the server for each."""

from __future__ import annotations

NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create_repository"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", rf"/api/models/{NAME}/preupload/([^/]+)", "preupload"),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/([0-9a-f]{64})", "lfs_put"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("POST", rf"/api/models/{NAME}/commit/([^/]+)", "commit"),
    ("POST", rf"/api/models/{NAME}/branch/([^/]+)", "create_branch"),
    ("GET", rf"/api/models/{NAME}", "model_info"),
    ("GET", rf"/api/models/{NAME}/revision/([^/]+)", "model_info"),
    ("GET", rf"/api/models/{NAME}/refs", "refs"),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", "tree"),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)/(.+)", "tree"),
    ("GET|HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", "resolve_file"),
    # data sets are read only; models and data sets share one space of names
    ("GET", rf"/api/datasets/{NAME}/revision/([^/]+)", "model_info"),
    ("GET", rf"/api/datasets/{NAME}/tree/([^/]+)", "tree"),
    ("GET|HEAD", rf"/datasets/{NAME}/resolve/([^/]+)/(.+)", "resolve_file"),
)
