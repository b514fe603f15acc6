"""FSDP2 training of preference and reward models: torch.distributed only, no ray."""
