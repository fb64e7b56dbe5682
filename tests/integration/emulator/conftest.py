import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
import tiny_gguf  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    return str(tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf", seed=7))
