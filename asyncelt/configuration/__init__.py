"""Values from outside of the program: environment variables and TOML files, and where they go.

Looked for in this order: what the program says (an argument, ``asyncelt.config["..."] = ...``), the environment,
``secrets.toml``, ``config.toml``, the default. Files are read once, when the first value is asked for.
"""
