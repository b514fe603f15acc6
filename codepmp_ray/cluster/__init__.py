"""The only package below serve/ that imports ray and, through it, vllm."""
