"""Models from a store that speaks S3: once a node, whole or not at all."""

import fcntl
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ModelNotFound
from pipelines.training import delivery
from serving import sources

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 50_000,
    "lineage.json": b'{"llumi_export": 1, "model": "gm", "stage": "dpo1", "form": "merged"}',
}


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, Any]]:
    """A query that leads to the store, and a client of it."""
    boto3 = pytest.importorskip("boto3", reason="the store is moto's")
    server_of = pytest.importorskip("moto.server", reason="the store is moto's")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    words = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **words)
    s3.create_bucket(Bucket="models")
    yield f"?endpoint_override={host}:{port}&scheme=http", s3
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
    for name, value in {**words, "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def exported(tmp_path: Path, target: str, weights: bytes = FILES["model.safetensors"]) -> None:
    """A model as ``llumi export`` leaves it."""
    folder = tmp_path / "made"
    folder.mkdir(exist_ok=True)
    for name, content in {**FILES, "model.safetensors": weights}.items():
        (folder / name).write_bytes(content)
    files = {name: folder / name for name in FILES}
    delivery.deliver(files, delivery.hashes(files), target)


def read(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_an_exported_model_is_copied_whole_and_kept(store: tuple[str, Any], tmp_path: Path) -> None:
    query, s3 = store
    location = f"s3://models/kept{query}"
    exported(tmp_path, location)
    folder = sources.local(location, tmp_path / "cache", 4)
    assert {name: read(folder)[name] for name in FILES} == FILES
    s3.put_object(Bucket="models", Key="kept/model.safetensors", Body=b"not the same")
    assert sources.local(location, tmp_path / "cache", 4) == folder
    assert read(folder)["model.safetensors"] == FILES["model.safetensors"]


def test_a_model_exported_again_is_another_version(store: tuple[str, Any], tmp_path: Path) -> None:
    location = f"s3://models/again{store[0]}"
    exported(tmp_path, location)
    first = sources.local(location, tmp_path / "cache", 4)
    exported(tmp_path, location, b"trained on")
    second = sources.local(location, tmp_path / "cache", 4)
    assert read(second)["model.safetensors"] == b"trained on"
    assert first != second and read(first)["model.safetensors"] == FILES["model.safetensors"]


def test_a_file_that_is_not_what_its_sum_says_is_refused_and_not_kept(store: tuple[str, Any], tmp_path: Path) -> None:
    query, s3 = store
    exported(tmp_path, f"s3://models/damaged{query}")
    s3.put_object(Bucket="models", Key="damaged/model.safetensors", Body=b"damaged")
    with pytest.raises(ModelNotFound, match=r"model\.safetensors"):
        sources.local(f"s3://models/damaged{query}", tmp_path / "cache", 4)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir() and not path.suffix]


def test_an_export_that_was_broken_off_is_refused(store: tuple[str, Any], tmp_path: Path) -> None:
    query, s3 = store
    exported(tmp_path, f"s3://models/broken{query}")
    s3.delete_object(Bucket="models", Key="broken/SHA256SUMS")
    with pytest.raises(ModelNotFound, match="broken off"):
        sources.local(f"s3://models/broken{query}", tmp_path / "cache", 4)


def test_a_model_that_came_there_in_another_way_is_served_too(store: tuple[str, Any], tmp_path: Path) -> None:
    query, s3 = store
    s3.put_object(Bucket="models", Key="plain/config.json", Body=b"{}")
    s3.put_object(Bucket="models", Key="plain/tokenizer/vocab.json", Body=b"{}")
    folder = Path(sources.local(f"s3://models/plain{query}", tmp_path / "cache", 4))
    assert (folder / "config.json").is_file() and (folder / "tokenizer" / "vocab.json").is_file()


def test_an_adapter_is_opened_where_there_may_be_one_and_nowhere_else(store: tuple[str, Any], tmp_path: Path) -> None:
    query, s3 = store
    (tmp_path / "adapter_config.json").write_text("{}")
    assert sources.local(str(tmp_path), tmp_path / "cache", 4, adapter=True) == str(tmp_path)
    with pytest.raises(ModelNotFound, match=r"config\.json is missing"):
        sources.local(str(tmp_path), tmp_path / "cache", 4)
    with pytest.raises(ModelNotFound, match="is not there"):
        sources.opened(str(tmp_path / "nowhere"), adapter=True)
    s3.put_object(Bucket="models", Key="adapter/adapter_config.json", Body=b"{}")
    folder = Path(sources.local(f"s3://models/adapter{query}", tmp_path / "cache", 4, adapter=True))
    assert (folder / "adapter_config.json").is_file()


@pytest.mark.parametrize("location", ["s3://models/nothing", "s3://nowhere/gm"])
def test_a_model_that_is_not_there_is_named(store: tuple[str, Any], tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelNotFound, match=location):
        sources.local(location + store[0], tmp_path / "cache", 4)


def _copy(location: str, cache: Path, start: Any, found: Any) -> None:
    start.wait()
    found.put(sources.local(location, cache, 4))


def test_replicas_that_start_at_once_copy_a_model_once(store: tuple[str, Any], tmp_path: Path) -> None:
    query, _ = store
    exported(tmp_path, f"s3://models/once{query}", os.urandom(3_000_000))
    context = multiprocessing.get_context("spawn")
    start, found = context.Event(), context.Queue()
    words = (f"s3://models/once{query}", tmp_path / "cache", start, found)
    processes = [context.Process(target=_copy, args=words) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    folders = {found.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(folders) == 1
    copies = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert copies == [Path(folders.pop())]


def test_who_comes_second_waits_for_the_first(store: tuple[str, Any], tmp_path: Path) -> None:
    location = f"s3://models/locked{store[0]}"
    exported(tmp_path, location)
    folder = Path(sources.local(location, tmp_path / "cache", 4))
    with ThreadPoolExecutor(1) as pool, (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(sources.local, location, tmp_path / "cache", 4)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.result(timeout=30) == str(folder)


def test_the_versions_used_longest_ago_go_first(store: tuple[str, Any], tmp_path: Path) -> None:
    kept = []
    for number in range(3):
        location = f"s3://models/many{number}{store[0]}"
        exported(tmp_path, location, str(number).encode())
        kept.append(Path(sources.local(location, tmp_path / "cache", 2)))
        os.utime(kept[-1], (number, number))
    assert [path.is_dir() for path in kept] == [False, True, True]


def test_a_models_version_is_the_hash_of_what_tells_its_origin(store: tuple[str, Any], tmp_path: Path) -> None:
    location = f"s3://models/lineage{store[0]}"
    exported(tmp_path, location)
    there, here = sources.about(location), sources.about(str(tmp_path / "made"))
    assert there["manifest"] == here["manifest"] and there["version"] == there["manifest"][:12]
    assert there["made"] == json.loads(FILES["lineage.json"])
    unknown = sources.about("some/model")
    assert unknown["manifest"] is None and unknown["version"] != there["version"]
