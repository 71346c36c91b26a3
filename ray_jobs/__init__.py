"""Everything that touches Ray: one module a verb, and the parts that they share."""
