"""From raw documents and rows to data worth training on.

documents, chunks, sentences        files as documents, and these as chunks that a person can read alone
boilerplate                         lines that many texts share
near_duplicates, exact_duplicates   rows that say the same, or nearly
contamination                       rows of an evaluation or a benchmark that stand in the training data
personal_data                       by phones, secrets, national_ids: where it stands, and texts without it
languages, repetition, odd          what a text is written in, what it repeats, which texts are unlike all others
cells, cut_answers                  empty and odd cells; answers that end in the middle of a sentence
inspection                          all of it for one data set: `ftlib data report`

step, rows                          what a step of a recipe is, what a row is
sources, reading, blocks            files become parts, parts become rows, rows become blocks
passes, runner, result              a recipe over blocks, and what it leaves: `ftlib data build`
store                               where blocks are kept between builds, by their content
workers, on_ray                     who does the work
draws, signs                        what whole steps know of rows: hashes, and draws from them
teachers/                           models that write rows: asked many at once, paid for once, within a budget
written, prompts, replies, faults   what they are asked, and what becomes of what they write
dialogues, quality, augmented       a row as question and answer; a judge's score; changed copies
steps/                              the steps, each in the file of its name
"""
