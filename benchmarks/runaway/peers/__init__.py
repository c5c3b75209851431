"""Peers as they are installed from the package index, each in an environment of its own, behind the lab's protocol."""
