"""State vectors spread over the processes of torch.distributed."""
