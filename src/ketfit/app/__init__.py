"""The web demo: ``journey`` computes, ``stations`` draws, ``page`` lays out and ``server`` guards and serves."""
