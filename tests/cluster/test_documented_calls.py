"""The calls that README and docs/serving.md show, as they stand there, against the real application."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from configs.store import StoreSettings
from serving.feedback.store import FeedbackStore
from tests.cluster.test_documented import FENCE, ROOT
from tests.serving.playground.site import DRAFT, REVISION, Site, running

pytestmark = pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("calls")
    store = FeedbackStore.of(StoreSettings().resolved(str(folder)))
    assert store is not None
    with running(folder, feedback=store) as site:
        yield site
    store.close()


def block(page: str, language: str, naming: str) -> str:
    """The one block of a page that names this."""
    (found,) = [
        code
        for kind, code in FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
        if kind == language and naming in code
    ]
    return str(found)


def run(site: Site, program: list[str], code: str) -> str:
    """What a block prints, the address being that of the site and the key one of its own."""
    url = site.url.rstrip("/")
    environment = {**os.environ, "LLUMI": url, "KEY": site.keys["ordinary"], "NO_PROXY": "*"}
    code = re.sub(r"(http://)?localhost:8000", url, code)
    return subprocess.run([*program, code], env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_call_by_curl_is_answered(page: str, site: Site) -> None:
    code = block(page, "sh", "curl")
    calls = "\n".join(line for line in code.splitlines() if not line.startswith(("export", "llumi")))
    answers = run(site, ["bash", "-ec"], calls.replace("curl -s ", "curl -sSf -w '\\n' "))
    told = [json.loads(line) for line in answers.splitlines()]
    assert len(told) == calls.count("curl ")
    assert {DRAFT, REVISION} <= {text for answer in told for text in texts(answer)}


def texts(answer: dict[str, object]) -> list[object]:
    drafts = answer.get("drafts", [])
    assert isinstance(drafts, list)
    return [answer.get("revision"), *(draft["text"] for draft in drafts)]


def test_openais_client_prints_a_draft_and_its_risk(page: str, site: Site) -> None:
    printed = run(site, [sys.executable, "-c"], block(page, "python", "OpenAI("))
    assert DRAFT in printed
    assert "'level': 'none'" in printed
