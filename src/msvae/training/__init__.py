"""Training: one loop, exact resume, atomic checkpoints."""
