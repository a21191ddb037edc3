"""Types that callers of `encode` and related methods see; `make lint` checks them statically as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_type

from tests.support.helpers import tiny_model


def test_encode_returns_the_requested_container() -> None:
    model = tiny_model()
    array = model.encode(["a red cat"])
    assert_type(array, NDArray[Any])
    assert isinstance(array, np.ndarray)
    tensor = model.encode(["a red cat"], convert_to_tensor=True)
    assert_type(tensor, torch.Tensor)
    assert isinstance(tensor, torch.Tensor)
    rows = model.encode(["a red cat"], convert_to_numpy=False)
    assert_type(rows, list[torch.Tensor])
    assert isinstance(rows, list)


def test_queries_and_documents_have_the_same_types() -> None:
    model = tiny_model()
    for encode in (model.encode_query, model.encode_document):
        assert isinstance(encode(["a red cat"]), np.ndarray)
    assert_type(model.encode_query(["a red cat"]), NDArray[Any])
    assert_type(model.encode_query(["a red cat"], convert_to_tensor=True), torch.Tensor)
    assert_type(model.encode_document(["a red cat"]), NDArray[Any])
    assert_type(model.encode_document(["a red cat"], convert_to_tensor=True), torch.Tensor)
    assert_type(model.encode_document(["a red cat"], convert_to_numpy=False), list[torch.Tensor])
