"""The names of our top-level packages are ours alone."""

import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest

from pipelines.manifest import PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_no_installed_distribution_provides_a_package_of_our_name(package):
    assert set(packages_distributions().get(package, [])) <= {"llumi"}


def test_settings_import_nothing_heavy():
    heavy = {"ray", "torch", "transformers", "pyarrow", "numpy", "datasets"}
    code = f"import sys, configs, configs.prompts; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
