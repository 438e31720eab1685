"""Eight simulated devices for every test, set before a backend starts.

With a GPU, `JAX_PLATFORMS=cuda pytest tests/test_attention_kernels.py` runs its kernels on it.
"""

import os

import jax
import pytest

# Tests compile far more than they compute: half the time without LLVM's optimisations, and half of
# that without the newer way to emit fusions (jax 0.12 has no other).
flags = ["--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(flags))
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def release_compiled_programs():
    """Forget what a module compiled, or the whole run holds gigabytes of programs."""
    yield
    jax.clear_caches()
