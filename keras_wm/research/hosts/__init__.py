"""Host networks of the experiments."""
