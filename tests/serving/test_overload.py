"""A burst at one ingress replica: some are served, the others refused in the API's form, and none waits for ever."""

import asyncio
from pathlib import Path

import httpx

from tests.serving.running import POST, running


def test_what_is_above_the_limit_is_refused_and_health_is_not(tmp_path: Path) -> None:
    with running(tmp_path, "serving.ingress.max_ongoing_requests=2", engine={"token_s": 0.02}) as site:

        async def burst() -> tuple[list[httpx.Response], httpx.Response]:
            async with httpx.AsyncClient(base_url=site.url, timeout=30, trust_env=False) as client:
                asked = [asyncio.create_task(client.post("/v1/generate", json={"post": POST})) for _ in range(6)]
                while len(site.gm.seen) < 2:
                    await asyncio.sleep(0.01)
                return list(await asyncio.gather(*asked)), await client.get("/healthz")

        answers, health = asyncio.run(burst())
        refused = [answer for answer in answers if answer.status_code == 503]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
        assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert all(answer.json()["error"]["message"] for answer in refused)
        assert health.status_code == 200
        assert site.post("/v1/generate", {"post": POST}).status_code == 200


def test_a_stream_holds_its_place_until_it_ends(tmp_path: Path) -> None:
    with running(tmp_path, "serving.ingress.max_ongoing_requests=1", engine={"token_s": 0.1}) as site:
        with site.client.stream("POST", "/v1/generate", json={"post": POST, "stream": True}) as response:
            assert response.status_code == 200
            assert httpx.post(f"{site.url}/v1/generate", json={"post": POST}, trust_env=False).status_code == 503
        for _ in range(100):  # the server notices in its own time that the client went
            answer = site.post("/v1/generate", {"post": POST, "max_tokens": 2})
            if answer.status_code == 200:
                break
        assert answer.status_code == 200
