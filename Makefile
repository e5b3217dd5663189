# make         the krait command in .venv/bin, and both images
# make run     build, boot under QEMU, show two PV guests and two Linux guests side by side
# make test    everything: types, interpreted, host library, sanitizers, QEMU/SVM, Bochs/VT-x
# make long    the decoder against iced-x86 over 12 million instructions, ten million broken virtio rings, fifty power cuts,
#              twelve million random hypercalls, a million IPIs, timer expiries and disk requests, shares of sixteen guests,
#              losses beside each stressor; outputs: tests/*/long.txt; power_cuts.txt, broken_rings.txt, interrupt_storm.txt, many_requests.txt,
#              fair_shares.txt, isolation.txt in qemu_tests/
# make setup   packages and Python environment (what scripts/setup does)
# make clean   forget everything built; keeps .venv and downloads

PYTHON_SOURCES := $(wildcard krait hypervisor guest_pv_drivers build tests qemu_tests)
KRAIT := .venv/bin/krait
WORKERS ?= 2

DECODED ?= 12000000
RINGS ?= 22000000
CUTS ?= 50

.PHONY: all setup env run test long check clean

all: env
	$(KRAIT) build

setup:
	scripts/setup

env:
	scripts/python-env

run: env
	$(KRAIT) run

check: env
	.venv/bin/mypy $(PYTHON_SOURCES)

test: check all
	.venv/bin/pytest --numprocesses $(WORKERS) --dist worksteal

long: env
	PYTHONPATH=.:build .venv/bin/python -m tests.decoder.compare $(DECODED) > tests/decoder/long.txt
	cat tests/decoder/long.txt
	KRAIT_LONG=1 .venv/bin/pytest qemu_tests/test_fair_shares.py -rP > out/fair_shares.log
	grep -E "^(shares|64 VMs):" out/fair_shares.log > qemu_tests/fair_shares.txt
	cat qemu_tests/fair_shares.txt
	$(KRAIT) bench isolation > qemu_tests/isolation.txt
	cat qemu_tests/isolation.txt
	PYTHONPATH=.:build .venv/bin/python -m tests.virtio.broken_rings $(RINGS) > tests/virtio/long.txt
	cat tests/virtio/long.txt
	.venv/bin/python -m qemu_tests.power_cuts $(CUTS) > qemu_tests/power_cuts.txt
	cat qemu_tests/power_cuts.txt
	.venv/bin/python -m qemu_tests.broken_rings 100000 > qemu_tests/broken_rings.txt
	cat qemu_tests/broken_rings.txt
	.venv/bin/python -m qemu_tests.many_requests 1000000 > qemu_tests/many_requests.txt
	cat qemu_tests/many_requests.txt
	PYTHONPATH=.:build .venv/bin/python -m tests.hostile.long > tests/hostile/long.txt
	cat tests/hostile/long.txt
	PYTHONPATH=.:build .venv/bin/python -m qemu_tests.interrupt_storm > qemu_tests/interrupt_storm.txt
	cat qemu_tests/interrupt_storm.txt

clean:
	rm -rf out .mypy_cache .pytest_cache .hypothesis
