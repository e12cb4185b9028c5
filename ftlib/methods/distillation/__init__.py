"""The parts of `method.type: distill`: the losses, the teacher's outputs on disk, the trainers, the facts at the
end."""
