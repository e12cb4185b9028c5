"""Models that write or judge rows, and what a step needs to ask them.

request         what is asked, what comes back, and what it takes at most
at_url, loaded  who answers: a server, a model in this process
kept_answers    an answer is paid for once
purse           a budget, which is never passed
answering       requests in order, many at once, within the budget
jobs            what is done with a row, as a generator that asks; and the step of a recipe that it makes
estimate        what a step asks, before it does
"""
