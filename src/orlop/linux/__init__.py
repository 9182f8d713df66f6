"""The kernel's interfaces under the kernel's names: descriptors in, descriptors and numbers out, OSError on failure.

No policy, no JSON, no import outside the standard library. ctypes (mostly by `ffi`, which is
the cheap part of it) is used here and nowhere else.
"""
