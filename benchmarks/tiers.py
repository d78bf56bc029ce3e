"""The CPU's tiers in the order of the tables. Apart from what the probe of `import vmjit` imports."""

from vmjit.engine import TIERS as ENGINE_TIERS

# What chooses comes last, what it chooses from before it.
TIERS = tuple(sorted(ENGINE_TIERS, key=lambda tier: (tier == "auto", tier)))
