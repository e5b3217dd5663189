"""The stock Linux guest's own part, without a hypervisor: kernel and file system boot, /init says so and powers off."""

import struct
import subprocess
from pathlib import Path

import pytest

from krait import config, images, linux_image, newc, tools
from krait.config import DEFAULT_LINUX_CMDLINE
from krait.config_reader import ConfigError


def test_the_initial_file_system_is_the_same_each_time() -> None:
    first = linux_image.initramfs().read_bytes()
    assert linux_image.initramfs().read_bytes() == first
    members = {member.name: member for member in newc.read(first)}
    assert members["etc/start"].data == linux_image.INIT.read_bytes()
    assert members["etc/start"].mode & 0o111 and members["bin/busybox"].mode & 0o111


def test_it_reaches_user_space_on_the_bare_machine() -> None:
    qemu = tools.BY_NAME["qemu-system-x86_64"].path()
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is missing; mend it with: scripts/setup")
    command = [qemu, "-nodefaults", "-accel", "tcg", "-m", "256M", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", str(linux_image.kernel()), "-initrd", str(linux_image.initramfs())]
    command += ["-append", f"{DEFAULT_LINUX_CMDLINE} krait.run=echo,run-$((6*7))"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("krait-guest: ")]
    assert lines[0] == "krait-guest: user space reached"
    assert lines[1].startswith("krait-guest: Linux 6.")
    assert lines[2:] == ["krait-guest: run echo,run-$((6*7))", "krait-guest: run ended with 0", "krait-guest: powering off"]
    assert "run-42" in done.stdout


def test_memory_that_cannot_hold_the_kernel_is_refused_with_its_line(tmp_path: Path) -> None:
    """pref_address 16 MiB, init_size 40 MiB, file system 4 MiB: 60 MiB are needed."""
    header = bytearray(0x264)
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<QI", header, 0x258, 16 << 20, 40 << 20)
    (tmp_path / "bzImage").write_bytes(header)
    (tmp_path / "initrd").write_bytes(bytes(4 << 20))
    text = '[[vm]]\nname = "tux"\nkind = "linux"\nkernel = "bzImage"\ninitrd = "initrd"\nmemory = "{}MiB"\n'
    assert images.guests(config.parse(text.format(60), "vms.toml", tmp_path), release=False)
    with pytest.raises(ConfigError) as caught:
        images.guests(config.parse(text.format(59), "vms.toml", tmp_path), release=False)
    assert str(caught.value) == "vms.toml:6: 'tux' has 59MiB; its kernel and file system need 60MiB to be loaded"
