"""Eight simulated devices for every test, set before a backend starts."""

import os

import jax
import pytest

# Tests compile far more than they compute: half the time without LLVM's optimisations.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def release_compiled_programs():
    """Forget what a module compiled, or the whole run holds gigabytes of programs."""
    yield
    jax.clear_caches()
