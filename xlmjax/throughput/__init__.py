"""How fast this machine trains and reads: the measurements behind `xlmjax bench`."""

from xlmjax.throughput.data import DataSpeed, measure_data
from xlmjax.throughput.kernels import KernelSpeed, measure_attention, measure_head
from xlmjax.throughput.step import StepSpeed, measure_step

__all__ = [
    "DataSpeed",
    "KernelSpeed",
    "StepSpeed",
    "measure_attention",
    "measure_data",
    "measure_head",
    "measure_step",
]
