"""What hack/kernel-report is made of: cubins, occupancy, the emulator's traffic, budgets, and the roofline model."""
