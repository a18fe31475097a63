"""How a run works: owning a pipeline, shaping pages into files, sealing packages, committing them."""
