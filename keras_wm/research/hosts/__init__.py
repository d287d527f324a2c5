"""Host networks: what the experiments put their marks into."""
