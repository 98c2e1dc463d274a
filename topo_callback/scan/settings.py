"""Settings of a scan, by the one parser of settings."""

from topo_callback.settings import scan_settings as read_settings

__all__ = ["read_settings"]
