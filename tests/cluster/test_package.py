"""The code that a job carries."""

import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from cluster.package import EXCLUDES, check_size, contents, working_dir
from configs.errors import UsageError
from pipelines.manifest import PACKAGES


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with everything in it that must stay behind."""
    files = {
        "cluster/cli.py": 10,
        "configs/demo.yaml": 5,
        "deep/er/still/code.py": 7,
        "data/RS.zst": 1000,
        "runs/demo/manifest.json": 1000,
        ".venv/lib/big.so": 1000,
        ".git/objects/x": 1000,
        "tests/test_x.py": 1000,
        "cluster/__pycache__/cli.pyc": 1000,
        "weights/adapter_model.safetensors": 1000,
        "private/notes.txt": 1000,
    }
    for name, size in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / ".rayignore").write_text("private/\n", encoding="utf-8")
    return tmp_path


def test_code_goes_along_and_data_environments_and_tests_stay(project):
    assert contents(project) == {
        "cluster/cli.py": 10,
        "configs/demo.yaml": 5,
        "deep/er/still/code.py": 7,
        ".rayignore": len("private/\n"),
    }


def test_what_is_weighed_is_what_ray_packs(project, tmp_path_factory):
    target = tmp_path_factory.mktemp("zip") / "package.zip"
    create_package(str(project), target, include_gitignore=True, excludes=list(EXCLUDES))
    with zipfile.ZipFile(target) as package:
        packed = {info.filename: info.file_size for info in package.infolist() if not info.is_dir()}
    assert packed == contents(project)


def test_too_much_is_refused_with_the_largest_files():
    sizes = {"small.py": 1000, "large.bin": 70_000_000, "larger.bin": 80_000_000}
    with pytest.raises(UsageError, match=r"150\.0 MB, .*max_upload_mb = 100; largest: larger\.bin \(80\.0 MB\), large"):
        check_size(sizes, 100)


def test_the_size_is_told_in_megabytes():
    assert check_size({"a": 1_500_000, "b": 500_000}, 100) == 2


def test_our_own_project_is_small_and_whole(tmp_path):
    carried = contents(working_dir(tmp_path))
    assert check_size(carried, 5) > 0
    assert {"cluster/cli.py", "configs/demo.yaml", "configs/prompts/gm.md", "pyproject.toml"} <= set(carried)
    assert {path.split("/")[0] for path in carried}.isdisjoint({".venv", ".git", "runs", "tests"})


def test_from_a_wheel_only_our_four_packages_are_copied(tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    for name in (*PACKAGES, "torch"):
        (site / name / "__pycache__").mkdir(parents=True)
        (site / name / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr("cluster.package.source_root", lambda: site)
    scratch = tmp_path / "scratch"
    assert working_dir(scratch) == scratch
    assert sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*.py")) == [
        f"{name}/__init__.py" for name in sorted(PACKAGES)
    ]
