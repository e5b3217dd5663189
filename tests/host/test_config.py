"""VM configuration: what is accepted, and that each refusal names file, line and reason."""

import re
import textwrap
from pathlib import Path

import pytest

from hypervisor import abi, model
from hypervisor.lang import sizeof
from krait import bundle, config, newc, paths
from krait.config_reader import ConfigError
from krait.outcome import ExitCode, KraitError

GOOD = """\
[machine]
memory = "256MiB"
memory_limit = "64 MiB"

[[vm]]
name = "ada"
kind = "pv"
memory = "16MiB"
weight = 300
workload = "spin"
cmdline = "seconds=3"

[[vm]]   # defaults
name = "tux"
kind = "linux"
"""


def problems(text: str) -> list[str]:
    """What is refused in `text`, each without the file's name."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "vms.toml", Path("/nonexistent"))
    assert caught.value.code is ExitCode.USAGE
    lines = str(caught.value).splitlines()
    assert all(line.startswith("vms.toml:") for line in lines)
    return [line.removeprefix("vms.toml:") for line in lines]


def test_a_good_file_gives_its_values_and_defaults() -> None:
    settings = config.parse(GOOD, "vms.toml", Path())
    ada, tux = settings.vms
    assert (settings.machine_memory, settings.memory_limit) == (256 << 20, 64 << 20)
    assert (ada.name, ada.kind, ada.memory, ada.weight) == ("ada", "pv", 16 << 20, 300)
    assert ada.cmdline == "workload=spin seconds=3"
    assert (tux.kind, tux.memory, tux.weight, tux.vcpus) == ("linux", 128 << 20, 100, 1)
    assert "krait.end=poweroff" in tux.cmdline


@pytest.mark.parametrize("path", sorted(paths.CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_good(path: Path) -> None:
    assert config.load(path).vms


VM = '[[vm]]\nname = "a"\nkind = "pv"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: no VM is described; each is a table: [[vm]]"),
        ("[[vm]]\nname = \n", "2: Invalid value"),
        ('[[vm]]\nname = "a"', "1: this VM has no 'kind'"),
        (VM + 'memroy = "1MiB"', "4: unknown key 'memroy'; known here: " + ", ".join(config.VM_KEYS)),
        (VM + 'memory = "16MB"', "4: 'memory' must be a size such as \"16MiB\" (KiB, MiB or GiB)"),
        (VM + 'memory = "4KiB"', "4: 'memory' is 4KiB; it must be from 256KiB to 1023GiB"),
        (VM.replace("pv", "multiboot") + 'kernel = "k"\nmemory = "1MiB"', "5: 'memory' is 1MiB; it must be from 2048KiB to 1023GiB"),
        (VM + 'memory = "9999KiB"', "4: 'memory' must be a multiple of 4KiB"),
        (VM + "weight = 0", "4: 'weight' is 0; it must be from 1 to 10000"),
        (VM + "weight = true", "4: 'weight' must be a whole number"),
        (VM.replace("pv", "linux") + "vcpus = 65", "4: 'vcpus' is 65; it must be from 1 to 64"),
        (VM + 'cmdline = "a\\nb"', "4: 'cmdline' must be printable ASCII"),
        (VM + f'cmdline = "{"x" * 1024}"', "4: 'cmdline' has 1024 bytes; at most 1023 fit"),
        (VM + 'kernel = "~nobody-of-that-name/x"', "4: 'kernel': there is no home folder for ~nobody-of-that-name/x"),
        (VM + "cpus = [-1]", f"4: 'cpus' is -1; it must be from 0 to {model.MAX_CPUS - 1}"),
        (VM + "pins = []", "4: 'pins' must be a list of host CPUs such as [0, 1]"),
        (VM + f"pins = {[0] * 65}", "4: 'pins' names 65 host CPUs; 64 at most"),
        (VM + "pins = [0, 1]", "4: 'pins' names 2 host CPUs, and there are 1 vCPUs"),
        (VM.replace("pv", "linux") + "vcpus = 2\npins = [0, 8]", f"5: 'pins' is 8; it must be from 0 to {model.MAX_CPUS - 1}"),
        (VM + "reserve = 5\npins = [0]", "5: a VM that has a reservation has no pinned vCPUs"),
        (VM + f"cpus = [{10**12}]", f"4: 'cpus' is {10**12}; it must be from 0 to {model.MAX_CPUS - 1}"),
        (VM + '[[disk]]\nname = "d"\nsize = "1MiB"\nimage = "none/d.img"', "7: 'image': there is no folder /nonexistent/none"),
        (VM + 'kernel = "none"', "4: 'kernel': there is no file /nonexistent/none"),
        (VM + 'boot = "pvh"', "4: 'boot' is for kind = \"linux\""),
        (VM.replace("pv", "linux") + 'boot = "efi"', "4: 'boot' is 'efi'; it must be \"linux64\" or \"pvh\""),
        (VM + 'initrd = "none"', "4: 'initrd' is for kind = \"linux\""),
        (VM + VM, "5: the name 'a' is taken by another VM"),
        (VM.replace('"a"', '"A b"'), "2: 'name' must be made of a-z, 0-9, '-' and '_', the first a letter or digit"),
        (VM.replace('"a"', f'"{"a" * 32}"'), "2: 'name' has 32 bytes; at most 31 fit"),
        (VM + 'console = "uart"', "4: 'console' is not for kind = \"pv\", which has one of its own"),
        (VM.replace("pv", "linux") + 'console = "tty"', "4: 'console' is 'tty'; it must be \"uart\" or \"virtio\""),
        (VM.replace("pv", "vm"), "3: 'kind' is 'vm'; it must be \"pv\", \"linux\" or \"multiboot\""),
        (VM.replace("pv", "linux") + 'workload = "spin"', "4: 'workload' is for kind = \"pv\"; other guests take 'cmdline'"),
        (VM.replace("pv", "multiboot"), "1: a VM of kind = \"multiboot\" needs a 'kernel'"),
        (VM + "modules = []", "4: 'modules' is for kind = \"multiboot\""),
        (VM.replace("pv", "multiboot") + 'modules = "a"', "4: 'modules' must be a list of at most 8 strings"),
        (VM.replace("pv", "multiboot") + 'modules = ["none x=1"]', "4: 'modules': there is no file /nonexistent/none"),
        ("[machine]\nmemory = 4\n" + VM, "2: 'memory' must be a size such as \"16MiB\" (KiB, MiB or GiB)"),
        ("frob = 1\n" + VM, "1: unknown key 'frob'; known here: machine, vm"),
        ("machine = 3\n" + VM, "1: 'machine' must be a table: [machine]"),
        ("vm = 3\n", "1: no VM is described; each is a table: [[vm]]"),
    ],
)
def test_what_is_wrong_is_refused_with_line_and_reason(text: str, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in problems(text)), problems(text)


def test_everything_wrong_is_reported_at_once_in_order_of_lines() -> None:
    found = problems('[[vm]]\nname = "A"\nkind = "x"\nweight = 0\ncolour = "red"\n')
    assert [problem.split(":")[0] for problem in found] == ["2", "3", "4", "5"]


def test_lines_are_right_behind_values_of_several_lines() -> None:
    text = '[[vm]]\nname = "a"\nkind = "pv"\ncmdline = """\\\n  weight = 3 [[vm]] \\\n  """ # "quoted"\nfoo = [\n  1, "]",\n]\nweight = 0\n'
    assert problems(text)[-1].startswith("10: 'weight' is 0")


def test_one_linux_guest_by_flags(tmp_path: Path) -> None:
    settings = config.one_linux("--linux", {"memory": "2GiB", "cmdline": "quiet"})
    (vm,) = settings.vms
    assert (vm.name, vm.kind, vm.memory, vm.cmdline, vm.kernel) == ("linux", "linux", 2 << 30, "quiet", None)
    assert settings.machine_memory == (2 << 30) + config.HOST_MEMORY
    with pytest.raises(ConfigError) as caught:
        config.one_linux("--linux", {"memory": "2GB", "kernel": str(tmp_path / "none")})
    assert str(caught.value).splitlines() == [
        "--linux: 'memory' must be a size such as \"16MiB\" (KiB, MiB or GiB)",
        f"--linux: 'kernel': there is no file {tmp_path}/none",
    ]


def test_more_vms_than_there_is_room_for_are_refused() -> None:
    text = "".join(f'[[vm]]\nname = "a{index}"\nkind = "pv"\n' for index in range(model.MAX_VMS + 1))
    assert problems(text) == [f"{3 * model.MAX_VMS + 1}: at most {model.MAX_VMS} VMs are possible"]


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(KraitError, match="No such file") as caught:
        config.load(tmp_path / "none.toml")
    assert caught.value.code is ExitCode.USAGE
    (tmp_path / "latin.toml").write_bytes(b"\n\n# \xe9\n")
    with pytest.raises(KraitError, match="latin.toml:3: not UTF-8"):
        config.load(tmp_path / "latin.toml")


DISKS = """\
[[disk]]
name = "data"
bus = "nvme"
size = "8MiB"

[[vm]]
name = "a"
kind = "pv"

[[vm.disk]]
disk = "data"
start = "4KiB"
size = "1MiB"
requests_per_second = 100

[[vm.disk]]
disk = "data"
name = "part"
partition = 2
overlay = "2MiB"
"""


def test_disks_of_the_machine_and_of_vms() -> None:
    settings = config.parse(DISKS, "vms.toml", Path())
    (data,) = settings.disks
    first, second = settings.vms[0].disks
    assert (data.name, data.bus, data.image, data.size) == ("data", "nvme", None, 8 << 20)
    assert (first.name, first.start, first.size, first.requests_a_second) == ("data", 4096, 1 << 20, 100)
    assert (second.name, second.disk, second.partition, second.overlay) == ("part", "data", 2, 2 << 20)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("nvme", "scsi"), "3: 'bus' is 'scsi'; it must be one of memory, virtio, ata, nvme"),
        (('size = "8MiB"', ""), "1: this disk has neither 'image' nor 'size'"),
        (('disk = "data"\nstart', 'disk = "other"\nstart'), "11: there is no [[disk]] of the name 'other'"),
        (("partition = 2", 'partition = 2\nsize = "4KiB"'), "19: 'partition' and 'start' or 'size' exclude each other"),
        (("partition = 2", "partition = 0"), "19: 'partition' is 0; it must be from 1 to 128"),
        (("partition = 2", "read_only = true"), "20: 'overlay' keeps what is written: the disk cannot be 'read_only' too"),
        (('overlay = "2MiB"', "overlay_partition = 3\nread_only = true"), "16: 'overlay' keeps what is written: the disk cannot be 'read_only' too"),
        (('overlay = "2MiB"', 'overlay_start = "1MiB"'), "20: 'overlay_start' needs 'overlay', its size"),
        (('overlay = "2MiB"', 'overlay = "2MiB"\noverlay_partition = 3'), "21: 'overlay_partition' and 'overlay' or 'overlay_start' exclude each other"),
        (('overlay = "2MiB"', 'overlay = "2MiB"\nkeep = true'), "21: 'keep' needs an overlay on the disk: 'overlay_start' or 'overlay_partition'"),
        (("partition = 2", "read_only = 1\nlimit = 2"), "20: unknown key 'limit'; known here: "),
        (("start = ", "first = "), "12: unknown key 'first'; known here: "),
        (('name = "data"', 'name = "a name that is far too long"'), "2: 'name' has 27 bytes; at most 20 fit"),
    ],
)
def test_disks_that_are_refused(change: tuple[str, str], expected: str) -> None:
    found = problems(DISKS.replace(*change, 1))
    assert any(problem.startswith(expected) for problem in found), found


def test_the_example_in_the_documents_holds_nothing_wrong_but_its_alternatives() -> None:
    text = (paths.ROOT / "docs" / "disks.md").read_text()
    example = re.search(r"(?:^    .*\n|^\n)+", text[text.index("    [[disk]]"):], re.MULTILINE)
    assert example is not None
    said = problems(textwrap.dedent(example[0]))
    assert said and not [line for line in said if not re.search("exclude each other|cannot be 'read_only' too|there is no folder", line)]


def test_bundle_tells_the_hypervisor_of_disks() -> None:
    settings = config.parse(DISKS.replace("nvme", "memory"), "vms.toml", Path())
    members: dict[Path, newc.Member] = {}
    data = bundle._disks(settings, members)
    assert len(data) == sizeof(abi.DisksHeader) + sizeof(abi.RamDiskConfig) + 2 * sizeof(abi.DiskConfig)
    assert data[:8] == abi.DISKS_MAGIC.to_bytes(8, "little") and b"part\0" in data and not members
