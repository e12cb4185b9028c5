"""From raw documents and rows to data worth training on.

near_duplicates, exact_duplicates   rows that say the same, or nearly
contamination                       rows of an evaluation or a benchmark that stand in the training data
personal_data                       by phones, secrets, national_ids: where it stands, and texts without it
languages, repetition, odd          what a text is written in, what it repeats, which texts are unlike all others
cells, cut_answers                  empty and odd cells; answers that end in the middle of a sentence
inspection                          all of it for one data set: `ftlib data report`
"""
