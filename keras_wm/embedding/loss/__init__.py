"""The penalty that embeds a mark, and its gradient."""
