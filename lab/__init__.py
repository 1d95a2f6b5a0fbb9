"""The laboratory: whole networks on one machine, out of Linux network namespaces. Used by tests, bench and demo.

Nothing here is part of the installed package. Everything needs root; nothing touches the machine's own network.
"""
