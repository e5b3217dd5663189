"""A guest kernel that does what no guest should, as a PV guest (ELF64) and as a Multiboot guest (the same as ELF32)."""
