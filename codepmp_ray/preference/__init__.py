"""Pairs as token ids: one tokenisation, prefix-sharing packing, plans that every rank can compute."""
