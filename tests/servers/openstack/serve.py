"""Serve Keystone or Barbican over HTTPS on loopback.

The applications find their configuration themselves: Keystone through
OS_KEYSTONE_CONFIG_DIR, Barbican as $HOME/.barbican/barbican.conf.
"""

import argparse
import contextlib
import fcntl
import mimetypes
import os
import pathlib
import signal
import socket
import sqlite3
import sys
import threading

import cheroot.server
import cheroot.ssl.builtin
import cheroot.wsgi

from access_log import AccessLog

_BACKLOG = 128
# Longer than a client keeps a connection for later use, so that it never finds one closed.
_IDLE_SECONDS = 120
_READS = ("GET", "HEAD", "OPTIONS")
_REQUEST_LIMIT = 16 * 1024 * 1024


def main():
    options = _parse_arguments()
    # Keystone hands sys.argv to its own option parser.
    del sys.argv[1:]
    # Barbican offers every type that the machine knows, and weighs all of them for each request.
    mimetypes.knownfiles.clear()
    listener = _listen(options.port)
    _rewrite_catalog(options.database, options.catalog)
    app = _load_keystone() if options.service == "keystone" else _load_barbican()
    app = WriteGate(app, options.write_lock)
    app = AccessLog(app, options.access_log)
    _serve_in_workers(app, listener, options)


def _parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=("keystone", "barbican"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", required=True, help="PEM file, chain included")
    parser.add_argument("--key", required=True, help="PEM file")
    parser.add_argument("--access-log", required=True)
    parser.add_argument("--write-lock", required=True, help="file that workers lock")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--database", required=True, help="sqlite file of the service")
    parser.add_argument(
        "--catalog",
        action="append",
        default=[],
        metavar="TYPE=URL",
        help="address that the catalog shall give for a service type",
    )
    return parser.parse_args()


class WriteGate:
    """WSGI layer that lets one changing request at a time through.

    sqlite has one writer. Without this gate, concurrent writers are answered
    500 "database is locked". Reads pass freely.
    """

    def __init__(self, app, lock_path):
        self._app = app
        self._lock_path = lock_path

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in _READS:
            return self._app(environ, start_response)
        # A file description of its own for each request excludes threads and processes alike.
        with open(self._lock_path, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            body = self._app(environ, start_response)
            try:
                return list(body)
            finally:
                if hasattr(body, "close"):
                    body.close()


class _Connection(cheroot.server.HTTPConnection):
    """Takes no thread until the client has something to say: neither before nor after the handshake."""

    seen = False
    trusted = False

    def communicate(self):
        if self.trusted:
            return super().communicate()
        try:
            self.socket.do_handshake()
        except OSError:
            return False
        self.trusted = True
        return True


class _Worker(cheroot.wsgi.Server):
    """Serves a socket that is bound already, and that other workers accept from too."""

    ConnectionClass = _Connection
    keep_alive_conn_limit = None

    def __init__(self, app, listener, threads):
        super().__init__(
            listener.getsockname(),
            app,
            numthreads=threads,
            request_queue_size=_BACKLOG,
            timeout=_IDLE_SECONDS,
        )
        self._listener = listener

    def bind(self, family, type, proto=0):
        self.socket = self._listener

    def prepare(self):
        super().prepare()
        # Another worker may be faster to accept: then go on, do not wait for the next connection.
        self.socket.setblocking(False)

    def process_conn(self, conn):
        if conn.seen:
            super().process_conn(conn)
        else:
            conn.seen = True
            self.put_conn(conn)


class _LazyTls(cheroot.ssl.builtin.BuiltinSSLAdapter):
    """Leaves the handshake to the connection: the loop that accepts must not wait for a client."""

    def wrap(self, sock):
        tls = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return tls, {"wsgi.url_scheme": "https", "HTTPS": "on"}


def _listen(port):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it. Without it each answer waits for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _rewrite_catalog(database, catalog):
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for entry in catalog:
            service_type, _, url = entry.partition("=")
            changed = connection.execute(
                "UPDATE endpoint SET url = ? WHERE service_id IN (SELECT id FROM service WHERE type = ?)",
                (url, service_type),
            )
            if not changed.rowcount:
                raise SystemExit(f"the catalog has no endpoint of type {service_type}")


def _load_keystone():
    from keystone.common.rbac_enforcer import enforcer
    from keystone.server import wsgi

    app = wsgi.initialize_public_application()
    # As in Barbican: the rules are made at the first request, and a second one that comes meanwhile sees half of them.
    enforcer.RBACEnforcer()._enforcer.load_rules()
    return app


def _load_barbican():
    from paste import deploy

    # barbican.wsgi reads a fixed path below /etc. The package ships the same file inside its environment.
    paste = pathlib.Path(sys.prefix, "etc", "barbican", "barbican-api-paste.ini")
    app = deploy.loadapp(f"config:{paste}")

    # Barbican makes its rules at the first request, and lets a second one that comes meanwhile see half of them: that
    # one is answered 500.
    from barbican.common import policy

    policy.init()
    return app


def _serve_in_workers(app, listener, options):
    """Fork the workers after the application is loaded. All end together."""
    lifeline, held_by_parent = os.pipe()
    workers = []
    for _ in range(options.workers):
        pid = os.fork()
        if pid == 0:
            os.close(held_by_parent)
            _serve(app, listener, options, lifeline)
            os._exit(0)
        workers.append(pid)
    listener.close()

    def stop(_signal, _frame):
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    os.wait()
    stop(None, None)
    # The port is free again only when the last worker is gone.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(0)


def _serve(app, listener, options, lifeline):
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(0))
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()
    # While one connection is open, sqlite need not fold its log into the file at the end of each request.
    held = sqlite3.connect(options.database)
    held.execute("SELECT 1 FROM sqlite_master")
    server = _Worker(app, listener, options.threads)
    server.ssl_adapter = _LazyTls(options.certificate, options.key)
    server.max_request_body_size = _REQUEST_LIMIT
    server.safe_start()


def _exit_with_parent(lifeline):
    # Nobody writes to it: the read ends when the parent is gone.
    os.read(lifeline, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
