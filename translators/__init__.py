"""IR to kernels: one lowering table, one module per target. Import as `vmjit.translators`."""
