"""``llumi demo``: the whole way on the built-in sample, then the service is asked over HTTP.

The texts it prints are the sample's and the models': a simulation wrote the former, so
this is the one place where the words of a post may be shown.
"""

from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
from rich.console import Console

from cluster.checks import check_settings
from cluster.keys import for_a_while
from cluster.runner import Runner
from cluster.service import check_address, running
from cluster.stages import table
from configs.errors import DataError, EngineError
from configs.settings import Settings
from pipelines.layout import Layout

TIMEOUT_S = 120.0


def demo(settings: Settings, console: Console, *, debug: bool) -> None:
    """Run every stage, ask the service for a draft and a revision, print both and where the report is."""
    check_settings(settings)
    check_address(settings)
    stages = table(settings)
    Runner(settings, stages, config="demo", console=console, debug=debug).run(stages)
    at = Layout(Path(settings.output))
    post, reply = example(at.threads)
    console.print("starting the service ...", highlight=False)
    with for_a_while(settings, "llumi demo") as key, running(settings, debug=debug) as url:
        drafted = ask(url, "generate", {"post": post}, key)
        revised = ask(url, "improve", {"post": post, "draft": reply}, key)
    shown = Console()
    for title, text in {
        "post (invented)": f"{post['title']}\n{post['text']}".strip(),
        "GM's draft": next((draft["text"] for draft in drafted["drafts"] if draft["text"]), none(drafted)),
        "a helper's draft (invented)": reply,
        "IM's revision of it": revised["revision"] or none(revised),
    }.items():
        shown.rule(title, align="left")
        shown.print(text, markup=False, highlight=False)
    shown.rule()
    shown.print(f"report: {at.evaluation / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def none(answer: dict[str, Any]) -> str:
    """What stands in the place of a text that the service did not give."""
    refusal = answer["refusal"] or {"message": "no reason given", "rules": []}
    return f"(none: {refusal['message']} {', '.join(refusal['rules'])})"


def example(threads: Path) -> tuple[dict[str, str], str]:
    """A held-out post of the sample, and the reply to it that was received worst."""
    for path in sorted(threads.glob("*.parquet")):
        for row in pq.read_table(path, filters=[("split", "=", "test")]).sort_by("post_id").to_pylist():
            if row["comments"]:
                worst = min(row["comments"], key=lambda reply: (reply["score"], reply["comment_id"]))
                return {"title": row["title"], "text": row["text"]}, worst["text"]
    raise DataError(f"{threads}: no held-out post has a reply")


def ask(url: str, route: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The service's answer to the holder of ``key``; raises EngineError with the status where it is none."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.post(f"{url}/v1/{route}", json=body, headers=headers, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        raise EngineError(f"{url}/v1/{route} did not answer: {type(error).__name__}") from error
    if response.status_code != httpx.codes.OK:
        raise EngineError(f"{url}/v1/{route} answered {response.status_code}")
    answer: dict[str, Any] = response.json()
    return answer
