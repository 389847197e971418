"""Few addresses are open, to the page alone, and it says texts and numbers."""

import json

import pytest

from ddpm_ip.ui.door import LONGEST, refusal

JOIN = "/gradio_api/queue/join"
SAID = {"data": ["run", 3, 0.5, None, True], "fn_index": 0, "session_hash": "x", "trigger_id": None}
FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


def status(method="GET", path="/", origin=None, body=b""):
    found = refusal(method, path, origin, body)
    return None if found is None else found.status


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index-1.js", "/theme.css", "/gradio_api/queue/data"])
def test_what_the_page_needs_is_open(path):
    assert status(path=path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=https://elsewhere.example/",
        "/gradio_api/proxy=https://elsewhere.example/",
        "/gradio_api/upload",
        "/gradio_api/run/predict",
        "/gradio_api/queue/join/x",
        "/gradio_api/run-history/connect",
        "/monitoring",
        "//elsewhere.example/",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else_is(path, method):
    assert status(method, path, body=b"{}") == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_lead_nowhere(method):
    assert status(method) == 404


@pytest.mark.parametrize("origin", ["http://127.0.0.1:7860", "http://localhost:7860", None])
def test_the_page_may_ask(origin):
    assert status("POST", JOIN, origin, json.dumps(SAID).encode()) is None


@pytest.mark.parametrize(
    "origin", ["http://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example", "", "file://"]
)
def test_other_pages_may_not(origin):
    assert status("POST", JOIN, origin, json.dumps(SAID).encode()) == 403


@pytest.mark.parametrize(
    "body",
    [
        {**SAID, "data": [FILE]},
        {**SAID, "data": [[FILE]]},
        {**SAID, "data": FILE},
        {**SAID, "event_data": {"x": 1}},
        [SAID],
        "text",
        None,
        {**SAID, "data": ["x" * LONGEST]},
    ],
)
def test_no_file_is_said(body):
    assert status("POST", JOIN, None, json.dumps(body).encode()) == 400


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"a":' * 1500 + b"1" + b"}" * 1500])
def test_what_is_no_object_is_not_taken(body):
    assert status("POST", JOIN, None, body) == 400
