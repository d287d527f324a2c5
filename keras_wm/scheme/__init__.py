"""The watermark itself: keys, projections, capacity and detection, with NumPy only."""
