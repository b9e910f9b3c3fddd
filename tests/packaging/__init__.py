"""What is built and shipped: that it runs where there is nothing else."""
