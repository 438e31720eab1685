"""TPU slices known to the compiler alone, and what is said where it is missing or does not know."""

import importlib.util

import jax
import pytest

from xlmjax.parallel.mesh import MeshConfig, make_mesh
from xlmjax.planning import hardware, topology


@pytest.mark.parametrize("name", ["v9:2x2", "v5e:16", "v5e", "two*v5e:4x4", "0*v5e:4x4"])
def test_a_name_that_is_none_is_refused_with_the_spelling(name):
    with pytest.raises(ValueError, match=r"GENERATION:AxB .*v4, v5e, v5p, v6e, v7x"):
        topology.tpu_devices(name)


@pytest.mark.parametrize("name", ["v5e:32x32", "v5e:32x8", "v6e:4x4x4", "v5p:4x4", "2*v4:16x16x20"])
def test_a_slice_that_nobody_rents_is_refused(name):
    with pytest.raises(ValueError, match=r"is no slice of v\w+: .*, at most \d+ chips"):
        topology.tpu_devices(name)


def test_without_the_compiler_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="uv sync --group tpu"):
        topology.tpu_devices("v5e:4x4")


@pytest.mark.tpu
@pytest.mark.parametrize(
    ("name", "count", "slices"),
    [
        ("v4:4x4x4", 64, 1),
        ("v5e:1x1", 1, 1),
        ("v5e:4x4", 16, 1),
        ("v5p:4x4x4", 64, 1),
        ("v6e:16x16", 256, 1),
        ("v7x:2x2x1", 8, 1),  # two devices a chip
        ("2*v5e:4x4", 32, 2),
    ],
)
def test_devices_of_a_slice(name, count, slices):
    pytest.importorskip("libtpu")
    devices = topology.tpu_devices(name)
    assert len(devices) == count
    assert len({getattr(device, "slice_index", 0) for device in devices}) == slices
    assert hardware.find_accelerator(devices[0]) is not None
    assert jax.devices()[0].platform == "cpu"


@pytest.mark.tpu
@pytest.mark.parametrize("name", ["v5e:4x4", "2*v5e:4x4"])
def test_a_mesh_may_split_an_axis_of_the_torus(name):
    pytest.importorskip("libtpu")
    devices = topology.tpu_devices(name)
    sizes = {"replica": len(devices) // 16, "data": 2, "fsdp": 2, "tensor": 4}
    assert dict(make_mesh(MeshConfig(**sizes), devices).shape) == sizes


@pytest.mark.tpu
def test_a_layout_that_no_slice_has_is_refused():
    pytest.importorskip("libtpu")
    with pytest.raises(ValueError, match=r"'v5e:5x7': libtpu does not know it"):
        topology.tpu_devices("v5e:5x7")
