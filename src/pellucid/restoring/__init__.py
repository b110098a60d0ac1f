"""The parts of restoring folders: what belongs where, what is done, stages that overlap."""
