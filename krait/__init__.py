"""The host side of Krait: build images, write bundles, run them on emulators, and read what they say."""
