"""Says who it is, and ends."""
from guest_pv_drivers import hypercall, start_info
from guest_pv_drivers.console import say
from hypervisor.lang import u32


def hello() -> u32:
    """The smallest workload."""
    info = start_info.get()
    say(f"hello from vm {info.vm_id}: {info.memory_bytes >> 20} MiB, {info.vcpu_count} vCPU, {hypercall.time_ns()} ns after its start")
    return 0
