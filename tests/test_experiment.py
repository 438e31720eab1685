"""What a process sets up before it touches a device."""

import jax
import pytest

from xlmjax.configs import base
from xlmjax.experiment import start_jax

CACHE = "jax_compilation_cache_dir"


@pytest.fixture
def no_cache():
    before = jax.config.values[CACHE]
    jax.config.update(CACHE, None)
    yield
    jax.config.update(CACHE, before)


@pytest.mark.usefixtures("no_cache")
def test_compiled_programs_are_kept_on_disk_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = start_jax(base.get_config())
    assert folder == str(tmp_path / "xlmjax" / "jax")
    assert jax.config.values[CACHE] == folder
    assert jax.config.values["jax_enable_compilation_cache"]
    jax.config.update(CACHE, "chosen by the user")
    assert start_jax(base.get_config()) == "chosen by the user"
