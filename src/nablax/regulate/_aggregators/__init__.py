"""Gradients of several objectives in, one direction out.

Each aggregator is `aggregator` given its own rule for the weights, and the options are the same everywhere.
``objectives`` is the number K: gradients of another number are refused, and the state records the weights. Methods that
remember something of every objective ask for it, since Optax makes the state of the parameters alone. ``throw`` says
whether failures raise; the state, an `AggregatorState`, tells of them either way. ``key``, of the methods that draw, is
kept in the state and split at each step. A function ``..._weights`` is the same rule for a Gramian, where no gradients
are at hand.

Where Optax has ``optax.experimental.aggregating``, they are what it calls an ``Aggregator``, with a leading axis of
objectives in place of examples: ``process(optax.identity(), regulate.upgrad(), optax.adam(1e-3))`` does what
``optax.chain(regulate.upgrad(), optax.adam(1e-3))`` does.
"""
