"""FAISS: the inner product with every row of a gallery's block, and with the points of examples that lie near a point.

Rows of a block are stored in half precision: a search is bound by memory, and takes 0.6 of the time and half the bytes that way.
Nothing is lost by it, because a gallery looks as far past the best as that precision errs, and computes what it answers from the
originals.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from app.domain.values import DESCRIPTOR_SIZE, FloatArray, Points


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


class FaissPointIndex:
    """Points in the lists of their words (an inverted file). Bytes are kept as they are, so that products are exact."""

    def __init__(self, points: Sequence[Points], words: int) -> None:
        """`words` are those of the code book. The points are copied."""
        _stay_on_this_thread()
        # Which lists a point lies in and which are searched is said by the caller: the quantizer has nothing to do.
        self._quantizer = faiss.IndexFlatIP(DESCRIPTOR_SIZE)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer, DESCRIPTOR_SIZE, words, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_INNER_PRODUCT, False
        )
        self._index.is_trained = True
        rows = np.concatenate([each.descriptors for each in points]).astype(np.float32)
        lists = np.concatenate([each.words for each in points]).astype(np.int64)
        self._index.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(lists))

    def search(
        self, descriptors: NDArray[np.uint8], probes: NDArray[np.int64], top: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[FloatArray, NDArray[np.int64]]:
        _stay_on_this_thread()
        queries, probes = descriptors.astype(np.float32), np.ascontiguousarray(probes)
        products, rows = np.empty((len(queries), top), np.float32), np.empty((len(queries), top), np.int64)
        nearness = np.zeros(probes.shape, np.float32)  # of the lists: only indexes of residuals ask for it
        selector = None if allowed is None else _selector_of(allowed)
        # The wrapper of FAISS leaves out the parameters, and with them the selector: so its own C++ method is called.
        parameters = faiss.SearchParametersIVF(nprobe=probes.shape[1], sel=selector)  # type: ignore[call-arg]
        arrays = [faiss.swig_ptr(array) for array in (probes, nearness, products, rows)]
        self._index.search_preassigned_c(  # type: ignore[attr-defined]
            len(queries), faiss.swig_ptr(queries), top, *arrays, False, parameters
        )
        return products, rows


def _stay_on_this_thread() -> None:
    # Callers are parallel, so FAISS shall not be. OpenMP keeps this number for each calling thread, hence in each call, not once.
    faiss.omp_set_num_threads(1)


def _limited_to(allowed: NDArray[np.bool_] | None) -> faiss.SearchParameters | None:
    # FAISS wraps this constructor and the next when it is imported, which its type stubs do not say.
    return None if allowed is None else faiss.SearchParameters(sel=_selector_of(allowed))  # type: ignore[call-arg]


def _selector_of(allowed: NDArray[np.bool_]) -> faiss.IDSelector:
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg, arg-type]
