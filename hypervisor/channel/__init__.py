"""The framed channel on COM2: what host tools and the hypervisor say to each other (docs/channel.md)."""
