"""What holds for all off-target tests."""
from hypothesis import settings

# Interpreted hypervisor code is slow and emulators share the machine: how long an example takes says nothing.
settings.register_profile("krait", deadline=None)
settings.load_profile("krait")
