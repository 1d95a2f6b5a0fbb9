"""ukihashi: Ethernet over HTTPS. A virtual HUB, a virtual LAN card, and a detector that finds such tunnels."""

__version__ = "0.1.0b1"  # the one place it stands (D1, A3); pages, logs, hello and packages read it from here
