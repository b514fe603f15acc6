"""Typed, frozen recipes. This package imports neither torch nor ray nor vllm (tested)."""
