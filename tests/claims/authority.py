"""A real time-stamping authority that is served on loopback, and can misdate."""

import re
import shutil
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from keras_wm.research.attacks.forging.authority import LocalAuthority

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the program openssl is not installed"
)

_TOKEN_INFO = "1.2.840.113549.1.9.16.1.4"
_RESPONSE = "application/timestamp-reply"


class Authority(LocalAuthority):
    """An authority that counts its answers, and can give another time."""

    requests = 0

    def respond(self, query):
        self.requests += 1
        return super().respond(query)

    def respond_at(self, query, time, signer=None):
        """Returns an answer with another time, signed by `openssl cms`.

        Args:
            query: The request.
            time: The time that the answer gives.
            signer: The authority that signs it, which `openssl ts` can refuse to do.
                Defaults to this one.
        """
        (self.folder / "query.tsq").write_bytes(query)
        token = self.openssl(
            *("ts", "-reply", "-config", "tsa.cnf", "-section", "here"),
            *("-queryfile", "query.tsq", "-token_out"),
        )
        (self.folder / "token.der").write_bytes(token)
        info = self.openssl(
            *("cms", "-verify", "-noverify", "-inform", "DER", "-in", "token.der")
        )
        stamped = time.strftime("%Y%m%d%H%M%SZ").encode()
        info, changed = re.subn(rb"20\d{12}Z", stamped, info)
        assert changed == 1
        signer = signer or self
        (signer.folder / "info.der").write_bytes(info)
        signed = signer.openssl(
            *("cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-cades"),
            *("-econtent_type", _TOKEN_INFO, "-in", "info.der", "-nosmimecap"),
            *("-signer", "signer.pem", "-inkey", "signer.key", "-md", "sha256"),
            *("-certfile", "chain.pem"),
        )
        return _sequence(_sequence(b"\x02\x01\x00") + signed)

    @contextmanager
    def serving(self, answer=None, status=200, kind=_RESPONSE):
        """Serves the authority on loopback; yields its URL.

        Args:
            answer: Function from a request to the answer. Defaults to `respond`.
            status: Status of HTTP.
            kind: Type of the content.
        """
        respond = answer or self.respond

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.headers["Content-Type"] == "application/timestamp-query"
                body = respond(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(
                target=server.serve_forever, args=(0.01,), daemon=True
            )
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/tsr"
            finally:
                server.shutdown()
                thread.join()


def _sequence(content):
    """Returns bytes as a sequence of ASN.1."""
    size = len(content).to_bytes(4, "big").lstrip(b"\0")
    length = size if len(content) < 128 else bytes([0x80 | len(size)]) + size
    return b"\x30" + length + content
