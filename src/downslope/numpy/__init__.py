"""The optimizer for NumPy arrays, `downslope.Optimizer`."""
