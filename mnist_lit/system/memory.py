"""Settings of the memory allocator."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the rest of the process; does nothing on systems without glibc.

    By default it returns the tensors of each training step to the system, which must find and clear pages for the next
    one: up to half of the step's time, and most of its variation. The process grows no larger than its largest step
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
        mallopt(M_MMAP_MAX, 0)  # allocate large tensors on the heap too
