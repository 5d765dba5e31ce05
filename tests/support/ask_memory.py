"""Sends requests to the memory service from inside a Pod: `python3 -c` with a JSON object on stdin; standard library only.

Input: {"url", "seconds", "requests": [{"method", "path", "token", "body", "key"}]}. A request that nobody answers, or that is
answered 503, is sent again for so many seconds. Output: [{"status", "body"}], in the same order.
"""

import json
import sys
import time
import urllib.error
import urllib.request


def ask(url, request, seconds):
    deadline = time.monotonic() + seconds
    headers = {"Content-Type": "application/json"}
    if request.get("token"):
        headers["Authorization"] = f"Bearer {request['token']}"
    if request.get("key"):
        headers["Idempotency-Key"] = request["key"]
    body = json.dumps(request["body"]).encode() if request.get("body") is not None else None
    while True:
        asked = urllib.request.Request(url + request["path"], body, headers, method=request["method"])  # noqa: S310 -- the test's own URL
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
                return {"status": answer.status, "body": answer.read().decode()}
        except urllib.error.HTTPError as error:
            found = {"status": error.code, "body": error.read().decode()}
            if error.code != 503:
                return found
        except OSError as error:
            found = {"status": 0, "body": str(error)}
        if time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def main():
    work = json.load(sys.stdin)
    json.dump([ask(work["url"], request, work["seconds"]) for request in work["requests"]], sys.stdout)


main()
