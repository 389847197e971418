"""The page once in a real browser, with a server that must reach nobody; skipped, with a warning, where one is missing.

Without gradio the command says how to install it.
"""

import importlib.util
import json
import shutil
import sys
import urllib.error
import urllib.request
import warnings

import pytest
from tests.tiny import end_group, finish, start, wait_for
from tests.ui.browser import Browser, chromium

from ddpm_ip.cli import main
from ddpm_ip.extras import how_to_install

LEFT = {"socket.connect", "socket.getaddrinfo", "socket.sendto"}
SERVER = f"""
import sys

def reached(event, given):
    if event in {LEFT!r}:
        print("REACHED", event, given, flush=True)
    elif event == "open" and str(given[0]).endswith("/secret"):
        print("REACHED", event, given, flush=True)

sys.addaudithook(reached)
from ddpm_ip.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def needed():
    """The browser's program.

    Raises:
        Skipped: there is none, or gradio is not installed; a warning says so, too, which ``-q`` does not hide.
    """
    missing = [] if chromium() else ["chromium"]
    missing += [] if importlib.util.find_spec("gradio") else [f"gradio ({how_to_install('demo')})"]
    if missing:
        reason = f"the page of demo-ui was NOT driven in a browser, for want of {' and '.join(missing)}"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return chromium()


@pytest.fixture
def server(needed, trained, tmp_path):
    """The folder that is shown, the process, and its address."""
    folder = tmp_path / "mine"
    shutil.copytree(trained, folder / "run")
    process = start("-c", SERVER, "demo-ui", folder, "--port", "0")
    try:
        address = next(word for word in wait_for(process, "http://").split() if word.startswith("http://"))
        yield folder, process, address
    finally:
        if process.poll() is None:
            end_group(process)
            process.wait()


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answer(address, headers=None, data=None):
    """The status of an answer."""
    try:
        with DIRECT.open(urllib.request.Request(address, data, headers or {}), timeout=60) as found:
            return found.status
    except urllib.error.HTTPError as error:
        return error.code


def forged(address, data):
    """The status of what no page would ask for."""
    given = json.dumps({"data": data, "fn_index": 0, "session_hash": "x", "trigger_id": None}).encode()
    return answer(f"{address}gradio_api/queue/join", {"Content-Type": "application/json"}, given)


def outcome(address):
    """What comes of it."""
    with DIRECT.open(f"{address}gradio_api/queue/data?session_hash=x", timeout=60) as found:
        said = b""
        while b"process_completed" not in said:
            said += found.readline()
    return said.decode()


def test_the_page_in_a_browser(server, needed, tmp_path):
    folder, process, address = server
    secret = folder.parent / "secret"
    secret.write_text("")
    shutil.copytree(folder / "run", folder.parent / "other")
    assert address.startswith("http://127.0.0.1:")
    with Browser(needed, tmp_path / "home") as browser:
        browser.width(1280)
        browser.call("Page.navigate", url=address)
        field = 'input[aria-label="B: corrections"]'
        browser.wait(f"document.querySelector('{field}') && document.querySelector('#go')")
        browser.wait("document.querySelector('input[aria-label=\"Weights\"]').value == 'run'")
        browser.wait("performance.getEntriesByType('resource').some(one => one.name.includes('/queue/data'))")

        sampled(browser, ".scene .plot")
        assert browser.value("document.querySelectorAll('.scene .chain').length") == 2
        assert browser.value("document.querySelectorAll('.scene .plot').length") == 2
        assert browser.value("document.querySelectorAll('.films img').length") == 4
        assert browser.value("[...document.querySelectorAll('.films img')].every(img => img.naturalHeight > 11 * 24)")
        assert "epsilon_scaling" in browser.value("document.querySelectorAll('.chain h3')[1].textContent")
        wound = "(s => { s.value = 0; s.dispatchEvent(new Event('input')) })(document.querySelector('.wind input'))"
        browser.value(wound)
        assert browser.value("[...document.querySelectorAll('output')].map(o => o.textContent)") == ["t = 999"] * 2

        browser.type(field, "epsilon_scalin,scale=1.01")
        sampled(browser, ".wrong")
        told = browser.value("document.querySelector('.wrong').textContent")
        assert told.startswith("B: ")
        assert "did you mean epsilon_scaling" in told
        assert "Traceback" not in told
        browser.type(field, "tsr,k=0.9")
        sampled(browser, ".scene .plot")
        assert "tsr,k=0.9" in browser.value("document.querySelectorAll('.chain h3')[1].textContent")

        for pixels in (1280, 390):
            browser.width(pixels)
            assert browser.value("document.documentElement.scrollWidth") <= pixels
        assert browser.errors == []
        assert {found for found in browser.addresses if not found.startswith((address, "blob:"))} == set()

    port = address.rstrip("/").rpartition(":")[2]
    assert answer(address) == 200
    assert answer(address, {"Host": f"elsewhere.example:{port}"}) == 400
    assert answer(address, {"Origin": "http://elsewhere.example"}) == 403
    for file in ("/etc/passwd", folder / "run/config.yaml", "https://elsewhere.example/"):
        assert answer(f"{address}gradio_api/file={file}") == 404
    assert answer(f"{address}gradio_api/upload", data=b"") == 404
    upload = {"path": str(secret), "url": "https://elsewhere.example/", "meta": {"_type": "gradio.FileData"}}
    others = [1, 0, "ddim", 2, "none", "ddim", 2, "none"]
    for weights in ("../other", str(folder.parent / "other"), str(secret)):
        assert forged(address, [weights, *others]) == 200
        assert "there are no weights" in outcome(address)
    for weights in (upload, [upload], {"path": "https://elsewhere.example/", **upload}):
        assert forged(address, [weights, *others]) == 400
    process.terminate()
    _, output = finish(process)
    assert "REACHED" not in output
    assert "Traceback" not in output


def sampled(browser, expected):
    """Presses the button, and waits for what it leads to in place of what was there."""
    browser.value("document.querySelector('#stage').querySelectorAll('.scene, .wrong').forEach(e => e.remove())")
    browser.value("document.querySelector('#go').click()")
    browser.wait(f"document.querySelector({json.dumps(expected)})")


def test_without_gradio_it_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ddpm_ip.ui.page", raising=False)
    assert main(["demo-ui", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: demo-ui needs gradio: {how_to_install('demo')}\n"


def test_it_takes_no_overrides(tmp_path, capsys):
    assert main(["demo-ui", str(tmp_path), "--train.n_steps", "3"]) == 2
    assert "--train.n_steps" in capsys.readouterr().err
