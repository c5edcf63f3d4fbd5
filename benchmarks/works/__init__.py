"""The works, one module per group. Importing a module registers its rows."""
