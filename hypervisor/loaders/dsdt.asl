// The DSDT of a VM with a platform; acpi_tables.py holds its AML (tests/linux/test_acpi_tables.py compiles this file and compares).
DefinitionBlock ("", "DSDT", 2, "KRAIT ", "KRAIT   ", 1)
{
    // Soft off: the sleep type that devices/acpi_pm.py takes.
    Name (_S5, Package () { 5, 5, 0, 0 })

    Scope (\_SB)
    {
        // PCI bus 0 behind configuration ports CF8 and CFC. The windows hold what virtio/devices.py places.
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0xC000, 0xCFFF, 0, 0x1000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, 0xE0000000, 0xEFFFFFFF, 0, 0x10000000)
            })
            // Pin A of devices 1 to 7: interrupts 11 and 10 in turn.
            Name (_PRT, Package ()
            {
                Package () { 0x0001FFFF, 0, 0, 11 },
                Package () { 0x0002FFFF, 0, 0, 10 },
                Package () { 0x0003FFFF, 0, 0, 11 },
                Package () { 0x0004FFFF, 0, 0, 10 },
                Package () { 0x0005FFFF, 0, 0, 11 },
                Package () { 0x0006FFFF, 0, 0, 10 },
                Package () { 0x0007FFFF, 0, 0, 11 }
            })
        }
    }
}
