"""Which queues of virtio devices may be served."""
from hypervisor.lang import u32
from hypervisor.model import Vm
from hypervisor.virtio.state import CONSOLE_RECEIVE, DRIVER_OK, NEEDS_RESET, QUEUES, Device, DeviceKind


def live(device: Device, index: u32) -> bool:
    """Whether a queue may be served."""
    r = device.registers
    return index < QUEUES and r.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK and r.queues[index].enabled


def console(vm: Vm) -> Device | None:
    """The virtio console whose driver listens: what is typed is its; None: it goes to the UART."""
    devices = vm.devices
    if devices is not None and vm.virtio_console:
        for device in devices.devices:
            if device is not None and device.registers.kind == DeviceKind.CONSOLE and live(device, CONSOLE_RECEIVE):
                return device
    return None
