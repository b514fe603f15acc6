"""Pairs as token ids: one tokenisation, prefix-sharing packing, plans known to every rank."""
