"""What libraries do while they are loaded, and when a program crashes."""
import ctypes
import ctypes.util
import decimal
import hashlib
import json
import secrets
import signal
import ssl
import subprocess
import sys
import uuid
import zlib

print(ssl.create_default_context().verify_mode.name)
print(hashlib.sha256(b"x").hexdigest()[:8], len(secrets.token_bytes(8)), uuid.uuid4().version)
print(zlib.decompress(zlib.compress(b"packed")).decode(), decimal.Decimal("0.1") + decimal.Decimal("0.2"))
print(json.dumps({"pid": ctypes.CDLL(None).getpid() > 0}))
crash = "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)"
ended = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, check=False)
print(-ended.returncode == signal.SIGSEGV, "Segmentation fault" in ended.stderr, "string_at" in ended.stderr)
ended = subprocess.run([sys.executable, "-c", "def deep(): raise ValueError('why')\ndeep()"], capture_output=True, text=True, check=False)
print("in deep" in ended.stderr, ended.stderr.strip().splitlines()[-1])

# says:
# CERT_REQUIRED
# 2d711642 8 4
# packed 0.3
# {"pid": true}
# True True True
# True ValueError: why
