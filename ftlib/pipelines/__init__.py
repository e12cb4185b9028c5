"""`ftlib pipeline`: the steps of a file in order, each skipped when what it depends on has not changed.

names       which names of the registry a step makes, and which its files name
inputs      all that a step depends on, as texts: its settings, contents of files, versions, winners
plan        what is to be done, and why
work        one step, done by the functions that the commands call
runner      all of them, with what is known of each in the pipeline's directory
endpoint    an endpoint that goes on after the pipeline
due         the figures that `when` looks at
"""
