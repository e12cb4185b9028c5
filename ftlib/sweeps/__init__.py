"""A sweep on Ray Tune: who proposes points, what the driver does, who stops trials, and a trial as Tune sees it."""
