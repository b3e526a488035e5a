"""How much memory there is, and settings of its allocator."""

import ctypes
import os
import sys

__all__ = ["keep_freed_memory", "total_memory"]

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


def total_memory() -> int | None:
    """Return the bytes of memory of this machine, or None where the system does not say."""
    if sys.platform == "win32":
        # https://learn.microsoft.com/windows/win32/api/sysinfoapi/ns-sysinfoapi-memorystatusex
        status = (ctypes.c_uint64 * 8)(64)  # the first number: dwLength and dwMemoryLoad, of 32 bits each
        return status[1] if ctypes.windll.kernel32.GlobalMemoryStatusEx(status) else None  # ullTotalPhys
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") if pages > 0 else None
    except (OSError, ValueError):
        return None
