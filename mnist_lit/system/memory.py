"""Keep the memory that tensors leave behind, instead of giving it back to the system and asking for it again."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, for the rest of the process; other systems' are left as they are.

    By default it returns the tensors of each training step to the system, which has to find and clear the pages for the
    next one: up to half of the step's time, and most of its variation. The process grows no larger than its largest
    step (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap
        mallopt(M_MMAP_MAX, 0)  # nor place large tensors outside of it
