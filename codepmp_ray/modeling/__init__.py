"""Backbone plus scalar head, losses, import and export of weights."""
