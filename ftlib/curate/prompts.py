"""What teachers are asked, in ftlib's words; `prompt:` of a step puts others in their place.

A row's text stands between marks, since it may be long and may hold instructions of its own.
"""

from __future__ import annotations

import re

MARKED = "<text>\n{text}\n</text>"

PROMPTS = {
    "instructions": f"""Read this text.

{MARKED}

Write {{count}} different questions that a reader could ask and that this text answers. Answer each one fully, with \
what the text says and nothing else. Each question has to be clear to somebody who does not see the text: name what it \
is about, and do not write "the text" or "this section". Write in the language of the text, in this form:

Question: ...
Answer: ...""",
    "self_instruct": f"""Here are tasks that people give an assistant.

{MARKED}

Write {{count}} new tasks of the same kind and in the same language, each on another subject than all of these, and \
answer each one. Write in this form:

Question: ...
Answer: ...""",
    "paraphrase": f"""{MARKED}

Say this in other words. Keep the meaning, the language, and all names and numbers. Write the new text alone.""",
    "translate": f"""{MARKED}

Translate this into {{language}}. Write the translation alone.""",
    "evolve": f"""{MARKED}

Rewrite this question so that it {{how}}. It has to be clear in itself, have an answer, and be in the same language. \
Write the new question alone, and do not answer it.""",
    "answers": "{text}",
    "reasoning": """{text}

Think step by step. Then write the answer alone on a last line that begins with "Answer:".""",
    "critique": """{question}

Here is an answer to that:

<answer>
{text}
</answer>

Judge the answer by this principle: {principle} Say in a few sentences where it breaks the principle, and how it can \
be better.""",
    "revise": """{question}

Here is an answer to that:

<answer>
{text}
</answer>

Here is what is wrong with it:

{critique}

Write a better answer. Write the answer alone.""",
}
ASKING = "You write one question that the given sentence answers. You name what the question is about."
ASKED = "Topic: {topic}\nSentence: {text}"
EXAMPLES = (  # topic, sentence, question: a small model follows examples better than a description
    (
        "The Amazon river",
        "The river carries about 209,000 cubic metres of water per second into the Atlantic.",
        "How much water does the Amazon river carry into the Atlantic?",
    ),
    (
        "git commit",
        "The --amend option replaces the last commit with a new one.",
        "What does the --amend option of git commit do?",
    ),
    (
        "Tax returns",
        "A return must be filed by the 15th of April, unless the taxpayer asks for an extension.",
        "By when must a tax return be filed?",
    ),
    (
        "Bees",
        "Worker bees communicate the direction of food by a dance.",
        "How do worker bees tell each other where food is?",
    ),
)
HARDER = (  # Evol-Instruct's in-depth evolving (Xu et al. 2023), and its evolving in breadth
    "has one more condition or requirement",
    "asks for more depth",
    "asks about a concrete case instead of a general one",
    "needs several steps of reasoning",
    "is about a rarer subject of the same field",
)
WORD = re.compile(r"\{(\w+)\}")


def for_a_question(topic: str, sentence: str) -> list[dict[str, str]]:
    """The chat that asks for the question that a sentence answers."""
    turns = [("system", ASKING)]
    for about, known, question in EXAMPLES:
        turns += [("user", filled(ASKED, topic=about, text=known)), ("assistant", question)]
    turns.append(("user", filled(ASKED, topic=topic, text=sentence)))
    return [{"role": role, "content": content} for role, content in turns]


def filled(prompt: str, **words: str) -> str:
    """A prompt with the words in the places of their names. What a word itself holds in braces stays."""
    return WORD.sub(lambda found: words.get(found[1], found[0]), prompt)
