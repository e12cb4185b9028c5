"""A sweep on Ray Tune: who proposes, who conducts, who stops, and a trial as Tune sees it."""
