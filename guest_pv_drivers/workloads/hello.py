"""Says who it is, and ends."""
from guest_pv_drivers import hypercall, start_info
from guest_pv_drivers.console import say
from hypervisor import text
from hypervisor.lang import u32


def hello() -> u32:
    """The smallest workload."""
    info = start_info.get()
    unit = text.size_unit(info.memory_bytes)
    say(f"hello from vm {info.vm_id}: {text.size(info.memory_bytes)} {unit}, {info.vcpu_count} vCPU, "
        f"{hypercall.time_ns()} ns after its start")
    return 0
