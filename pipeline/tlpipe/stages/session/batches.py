"""Finds the batch size that suits a GPU by trying; tells a full memory from other failures."""

from __future__ import annotations

from collections.abc import Callable

FIRST, MOST = 8, 512
"""Sizes tried at first, and at most: 512 images of 224 x 224 pixels are 77 MB."""

ENOUGH = 1.05
"""A doubled batch must be this much faster per image to be worth trying another."""

# What ONNX Runtime's messages hold when a GPU's memory is full. Sources: onnxruntime issues #16307
# and #16512 ("Failed to allocate memory for requested buffer of size", CUBLAS_STATUS_ALLOC_FAILED);
# NVIDIA, cuBLAS, cuDNN and cuFFT: cublasStatus_t, cudnnStatus_t (of version 8, and of 9 with the
# parts of its last two names), cufftResult; CUDA Runtime API, cudaGetErrorString of
# cudaErrorMemoryAllocation ("out of memory"); TensorRT: ErrorCode::kOUT_OF_MEMORY.
_FULL = (
    "failed to allocate memory",
    "out of memory",
    "out_of_memory",
    "alloc_failed",
    "allocation_failed",
    "cudaerrormemoryallocation",
    "bad allocation",
    "std::bad_alloc",
)


def is_out_of_memory(exc: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that memory is full."""
    while exc is not None:
        text = str(exc).lower()
        if isinstance(exc, MemoryError) or any(words in text for words in _FULL):
            return True
        exc = exc.__cause__
    return False


def best_batch_size(
    try_size: Callable[[int], float], *, first: int = FIRST, most: int = MOST
) -> int:
    """Size of batch with the most images per second: doubled until that is no longer worth it.

    Parameters
    ----------
    try_size : callable
        Runs a batch of a size, gives the seconds it takes.
    first, most : int
        The size to begin with, and the largest. Smaller ones are tried only where memory is too
        small for `first`.

    Raises
    ------
    Exception
        What `try_size` raised: any failure but that of a full memory, or that for one image.
    """
    size, best, best_rate = first, 0, 0.0
    while size <= most:
        try:
            rate = size / max(try_size(size), 1e-9)
        except Exception as exc:
            if not is_out_of_memory(exc) or (not best and size == 1):
                raise
            if best:
                break
            size, most = size // 2, size // 2  # nothing larger can fit
            continue
        enough = rate >= best_rate * ENOUGH
        if rate > best_rate:
            best, best_rate = size, rate
        if not enough:
            break
        size *= 2
    return best
