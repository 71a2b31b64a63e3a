"""How much memory each part of the agent brings: the growth of a fresh process, import by import."""

import json
import subprocess
from collections.abc import Sequence

PARTS = (
    "ssl", "asyncio", "cryptography.hazmat.primitives.asymmetric.ec", "cryptography.x509", "pydantic", "structlog",
    "paho.mqtt.client", "aiomqtt", "securesystemslib.signer", "tuf.api.metadata", "h11", "zstandard",
    "device_client.service",
)  # fmt: skip
"""In this order; what a part needs and an earlier one brought already counts for the earlier one."""
_SCRIPT = """
import importlib, json, sys
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
found = {"the interpreter": rss()}
for name in sys.argv[1:]:
    before = rss()
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    found[name] = rss() - before
print(json.dumps(found))
"""


def shares_mb(python: str, env: dict[str, str], parts: Sequence[str] = PARTS) -> dict[str, float]:
    """MB by part, of resident memory. Blocking."""
    done = subprocess.run([python, "-c", _SCRIPT, *parts], env=env, check=True, capture_output=True, text=True)
    return {name: round(size / 1e6, 1) for name, size in json.loads(done.stdout).items()}
