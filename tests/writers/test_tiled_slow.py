"""A Tiled server that answers, and never does what one run asks: no other run waits for that one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import bluesky.plans as bp
import httpx
import pytest
from bluesky import RunEngine
from ophyd.sim import SynGauss
from tiled.client import from_uri

from bec_bluesky.documents import CatalogAddress
from writers import _tiled_server
from writers.tiled import RunNotTakenError, TiledWriter


class Front:
    """Stands before a Tiled server, and keeps what is written of one run until `let_go()`."""

    def __init__(self, server: str) -> None:
        self.kept_uid = "none yet"
        self.let_go = threading.Event()
        self.kept = 0
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command != "GET" and front.kept_uid in self.path:
                    front.kept += 1
                    front.let_go.wait(60.0)
                sent = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
                sent["Accept-Encoding"] = "identity"
                found = httpx.request(
                    self.command, f"{server}{self.path}", headers=sent, content=body, trust_env=False, timeout=60.0
                )
                try:
                    self.send_response(found.status_code)
                    for name, value in found.headers.items():
                        if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(found.content)))
                    self.end_headers()
                    self.wfile.write(found.content)
                except OSError:  # whoever asked has given up
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # names of the library

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def front(address: CatalogAddress) -> Iterator[Front]:
    front = Front(str(httpx.URL(address.uri).copy_with(path="")).rstrip("/"))
    thread = threading.Thread(target=front.http.serve_forever)
    thread.start()
    try:
        yield front
    finally:
        front.let_go.set()
        front.http.shutdown()
        thread.join()
        front.http.server_close()


def test_a_run_whose_requests_are_never_answered_holds_up_no_other(
    run_engine: RunEngine, address: CatalogAddress, front: Front, gauss: SynGauss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tiled_server, "_TIMEOUT", httpx.Timeout(6.0))
    monkeypatch.setattr(_tiled_server, "_OPERATION", 5.0)
    monkeypatch.setattr("writers.tiled._ATTEMPTS", 2)
    uids = []
    runs: list[list[tuple[str, Any]]] = []
    for _ in range(2):
        documents: list[tuple[str, Any]] = []
        run_engine(bp.count([gauss], 3), lambda *document, documents=documents: documents.append(document))
        uids.append(documents[0][1]["uid"])
        runs.append(documents)
    front.kept_uid = uids[0]
    writer = TiledWriter(front.url + httpx.URL(address.uri).path, address.api_key)
    for documents in runs:
        for name, doc in documents:
            writer(name, doc)
    assert not writer.wait(120.0)
    assert front.kept >= 2
    with pytest.raises(RunNotTakenError, match=r"did not take the run in 2 attempts: .*in time"):
        writer.is_stored(uids[0])
    assert writer.is_stored(uids[1])
    front.let_go.set()  # and fed again, it is written
    for name, doc in runs[0]:
        writer(name, doc)
    assert writer.wait(60.0)
    writer.close()
    catalog = from_uri(address.uri, api_key=address.api_key)
    assert [len(catalog[uid]["primary"].read()["gauss"]) for uid in uids] == [3, 3]
    catalog.context.http_client.close()
