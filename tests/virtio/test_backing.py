"""A chain whose pages have no frames yet is given a bounded number at a time, and in the end all."""
from hypervisor.addresses import PAGE_SIZE, Gpa
from hypervisor.memory import guest_memory
from hypervisor.status import Status
from hypervisor.virtio import block_device
from hypervisor.virtio.block_device import GIVEN_AT_ONCE, T_OUT, work
from hypervisor.virtio.ring import Chain
from tests.memory.world import World

SEGMENTS = 65
LENGTH = 1024  # of each, across a page


def test_frames_are_given_in_pieces() -> None:
    world = World(600)
    try:
        vm = world.vm(256)
        vcpu = vm.vcpus[0]
        assert vcpu is not None
        chain = Chain()
        chain.count = chain.readable = SEGMENTS
        for index in range(SEGMENTS):
            chain.segments[index].gpa = Gpa((2 * index + 1) * PAGE_SIZE - LENGTH // 2)
            chain.segments[index].length = LENGTH
        chain.count += 1
        chain.segments[SEGMENTS].gpa, chain.segments[SEGMENTS].length = Gpa(200 * PAGE_SIZE), 1
        chain.read_bytes, chain.write_bytes = SEGMENTS * LENGTH, 1
        work.header.type = T_OUT
        block_device.find_data(chain)
        calls, status = 0, Status.WAIT
        while status == Status.WAIT:
            before = vm.private_frames
            status = block_device.back(vm, vcpu, chain)
            calls += 1
            assert vm.private_frames - before <= GIVEN_AT_ONCE + 1 and calls < 20
        assert status == Status.OK and calls == 2 * SEGMENTS // GIVEN_AT_ONCE + 1
        assert all(guest_memory.host_address(vm, Gpa(page * PAGE_SIZE)) for page in [*range(2 * SEGMENTS), 200])
    finally:
        world.close()
