"""To which step of a download does a stack belong? Pure: file names, functions and source lines in, a word out.

A call into C is seen as the Python line that makes it, so lines are told by what stands on them. Everything that is
not such a call and stands in the agent's or the protocol's own files is our own Python.
"""

import linecache
import re
from collections.abc import Sequence

OWN = "own python"
LIBRARY = "mqtt and event loop"
OTHER = "other python"
STEPS = ("fetch", "verify", "decrypt", "decompress", "write", LIBRARY, OWN, OTHER)
"""``fetch`` is TLS and sockets, in C and in the kernel."""

_CALLS = (
    ("verify", re.compile(r"sha256\(|\.update\(|\.digest\(|hmac\.|\.verify\(")),
    ("decrypt", re.compile(r"AESGCM\(|\.decrypt\(|\.open\(|_SUITE")),
    ("decompress", re.compile(r"zstd|\.decompress\(|Decompressor\(")),
    ("write", re.compile(r"os\.(pwrite|write|pread|read|fsync|fdatasync|open|ftruncate|posix_|preadv|close)|\.sync\(")),
)
_SOCKETS = re.compile(r"/(ssl|socket|selectors)\.py$")
_LIBRARIES = re.compile(r"/(paho|aiomqtt|asyncio|concurrent)/")
_OURS = re.compile(r"/(device_client|protocol)/")
_Frame = tuple[str, str, int]


def step_of(stack: Sequence[_Frame]) -> tuple[str, str]:
    """The step, and the line for a profile.

    Args:
        stack: (file, function, line) from the innermost frame outwards.
    """
    file, function, number = stack[0]
    name = f"{'/'.join(file.split('/')[-2:])}:{number} {function}"
    if _OURS.search(file):
        line = linecache.getline(file, number)
        return next((step for step, pattern in _CALLS if pattern.search(line)), OWN), name
    if _SOCKETS.search(file) or (file.endswith("paho/mqtt/client.py") and function in ("_sock_recv", "_sock_send")):
        return "fetch", name
    if file.endswith("hashlib.py"):
        return "verify", name
    if "zstd" in file or "/compression/" in file:
        return "decompress", name
    return (LIBRARY if _LIBRARIES.search(file) else OTHER), name
