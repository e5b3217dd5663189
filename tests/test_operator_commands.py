"""The tables of the operator's commands belong together."""

from hypervisor import operator_commands as commands


def test_each_command_has_its_place_in_every_table() -> None:
    tables = (commands.NAMES, commands.USAGE, commands.MEANINGS, commands.ACTIONS)
    assert [len(table) for table in tables] == [commands.COMMANDS] * len(tables)
    assert len(set(commands.NAMES)) == commands.COMMANDS
    assert all(usage.split()[0] == name for name, usage in zip(commands.NAMES, commands.USAGE, strict=True))
