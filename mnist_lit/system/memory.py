"""How much memory there is."""

import ctypes
import os
import sys

__all__ = ["total_memory"]


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
