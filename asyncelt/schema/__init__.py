"""The schema room: names, types, tables and how they change. Pure values and functions, no I/O.

* `model` the values; `system` the engine's own tables and columns; `stored` schemas as JSON and their hash;
* `naming` names; `arrow` types; `columns` and `hints` what users declare; `evolve` how a schema moves forward;
* `capabilities` what a destination can hold.
"""
