"""From a snippet to a preference pair: prompts, hops, constructions, gates. No ray, no vllm."""
