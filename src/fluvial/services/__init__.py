"""Composition root: settings and clients are put together here, for the command line and for Faust."""
