"""What a process sets up before it touches a device."""

import jax
import pytest
from etils import epath

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


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(
    ("workdir", "field", "expected"),
    [
        ("gs://bucket/pod", "", "gs://bucket/compiled"),
        (epath.Path("gs://bucket/mine/pod"), "", "gs://bucket/mine/compiled"),
        ("gs://bucket/", "", "gs://bucket/compiled"),
        ("gs://bucket/pod", "gs://other/place", "gs://other/place"),
        ("/shared/pod", "", None),
        ("pod", "", None),
    ],
)
def test_runs_in_a_bucket_share_their_compiled_programs_there(
    monkeypatch, tmp_path, workdir, field, expected
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = base.get_config()
    config.train.compilation_cache = field
    expected = expected or str(tmp_path / "xlmjax" / "jax")
    assert start_jax(config, workdir) == expected
    assert jax.config.values[CACHE] == expected
