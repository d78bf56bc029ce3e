"""What `vmjit bench` stands on: contestants, how they are measured, and what is made of the figures."""
