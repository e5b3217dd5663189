"""Instructions of the guest, decoded: lengths of all, operands of those that touch memory for MMIO."""
