"""What a site does: trains, encrypts, commits, and when elected adds, verifies and helps to open. Holds all secrets."""

from bahefl_flwr.site.client_app import secure_client_app

__all__ = ["secure_client_app"]
