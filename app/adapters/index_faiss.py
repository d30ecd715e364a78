"""FAISS: the inner product with every row of a gallery's block.

Rows are stored in half precision: a search is bound by memory, and takes 0.6 of the time and half the bytes that way. Nothing is
lost by it, because a gallery looks as far past the best as that precision errs, and computes what it answers from the originals.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from app.domain.values import FloatArray


class FaissIndex:
    def __init__(self, rows: FloatArray) -> None:
        """`rows` (n, d) are copied; n may be 0."""
        _stay_on_this_thread()
        self._index = faiss.IndexScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index.add(np.ascontiguousarray(rows))

    def search(self, queries: FloatArray, top: int, allowed: NDArray[np.bool_] | None) -> tuple[FloatArray, NDArray[np.int64]]:
        _stay_on_this_thread()
        similarities, rows = self._index.search(np.ascontiguousarray(queries), top, params=_limited_to(allowed))
        return similarities, rows


def _stay_on_this_thread() -> None:
    # Callers are parallel, so FAISS shall not be. OpenMP keeps this number for each calling thread, hence in each call, not once.
    faiss.omp_set_num_threads(1)


def _limited_to(allowed: NDArray[np.bool_] | None) -> faiss.SearchParameters | None:
    if allowed is None:
        return None
    # FAISS wraps both constructors when it is imported, which its type stubs do not say.
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg, arg-type]
    return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
