"""One line of JSON for each request that a server answered.

Tests count requests from this file. A line never holds a token, a payload or a
password: of a login only the name of who tried is kept.
"""

import io
import json
import os
import time

_LOGIN_PATH = "/v3/auth/tokens"
_LOGIN_BODY_LIMIT = 64 * 1024


class AccessLog:
    """WSGI layer that appends to `path` what passed through `app`.

    A line is written in one system call, before the last byte of the answer
    leaves. So a client that has its answer finds its line, and several
    processes may share the file.
    """

    def __init__(self, app, path):
        self._app = app
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, environ, start_response):
        started = time.monotonic()
        line = {
            "time": time.time(),
            "method": environ["REQUEST_METHOD"],
            "path": environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            "query": environ.get("QUERY_STRING", ""),
            "accept": environ.get("HTTP_ACCEPT", ""),
        }
        if line["method"] == "POST" and line["path"] == _LOGIN_PATH:
            line["login"] = _who_logs_in(environ)
        answered = {}

        def note_status(status, headers, exc_info=None):
            answered["status"] = int(status.split(" ", 1)[0])
            answered["request_id"] = _request_id(headers)
            return start_response(status, headers, exc_info)

        body = self._app(environ, note_status)
        try:
            chunks = list(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        line.update(answered)
        # The token filter of the server leaves these behind for the caller it accepted.
        line["user"] = environ.get("HTTP_X_USER_ID") or None
        line["project"] = environ.get("HTTP_X_PROJECT_ID") or None
        line["milliseconds"] = round((time.monotonic() - started) * 1000, 3)
        os.write(self._file, (json.dumps(line) + "\n").encode())
        return chunks


def _request_id(headers):
    for name, value in headers:
        if name.lower() == "x-openstack-request-id":
            return value
    return None


def _who_logs_in(environ):
    """The user or application credential a login names, or None if it names none."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > _LOGIN_BODY_LIMIT:
        return None
    raw = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(raw)
    try:
        identity = json.loads(raw)["auth"]["identity"]
        credential = identity.get("application_credential")
        subject = credential or identity["password"]["user"]
        return {
            "methods": identity.get("methods"),
            "application_credential": (credential or {}).get("id"),
            "user_id": subject.get("id") if not credential else subject.get("user", {}).get("id"),
            "user_name": subject.get("name") if not credential else subject.get("user", {}).get("name"),
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
