"""Requests through the socket unit, eight at once, each on a connection of its own; for tests/systemd.sh. Exits 1 if one failed.

load.py SECONDS, with the key in KEY. Standard library only: it runs with the container's Python.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import threading
import time


def main() -> int:
    context = ssl.create_default_context(cafile="/etc/vsrv/ca/ca.pem")
    headers = {"Authorization": f"Bearer {os.environ['KEY']}", "Content-Type": "application/json"}
    body = json.dumps({"prompt": "hello", "max_tokens": 8})
    end, lock = time.monotonic() + float(sys.argv[1]), threading.Lock()
    seconds: list[float] = []
    faults: list[str] = []

    def go() -> None:
        while time.monotonic() < end:
            began, fault = time.monotonic(), ""
            connection = http.client.HTTPSConnection("localhost", 8000, context=context, timeout=60)
            try:
                connection.request("POST", "/v1/completions", body, headers)
                reply = connection.getresponse()
                text = reply.read()
                fault = "" if reply.status == 200 else f"{reply.status} {text[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
            finally:
                connection.close()
            with lock:
                seconds.append(time.monotonic() - began)
                faults.extend([fault] if fault else [])
            time.sleep(0.02)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        f"{len(seconds)} requests, {len(faults)} failed, the longest took {max(seconds):.1f} s",
        *faults[:5],
        sep="\n",
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
